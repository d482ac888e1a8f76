"""Provider control: what a worker knows of it, and what a call may do by it. No I/O of its own."""

from .flagd import flagd
from .flags import Target, allows
from .gate import Gate
from .snapshots import Snapshots

__all__ = ["Gate", "Snapshots", "Target", "allows", "flagd"]
