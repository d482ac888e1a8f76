"""What our processes tell about themselves: logs, traces and metrics."""

from .logs import log_to_stderr
from .traces import is_tracing, plugins, trace_by, trace_to

__all__ = ["is_tracing", "log_to_stderr", "plugins", "trace_by", "trace_to"]
