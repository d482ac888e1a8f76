"""What our processes tell about themselves: logs, and traces."""

from .logs import log_to_stderr
from .traces import is_tracing, plugins

__all__ = ["is_tracing", "log_to_stderr", "plugins"]
