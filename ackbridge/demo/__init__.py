"""demo: real calls through the whole stack, one of each kind of end, and a report that adds up."""

from .run import run_demo

__all__ = ["run_demo"]
