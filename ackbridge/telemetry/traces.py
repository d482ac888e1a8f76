"""Traces: there are none until somebody sets OpenTelemetry's one global tracer provider.

In a process of ours that is `exporting.traced`, told to by `OTEL_*`. A service that uses our client
and has set one up itself gets its calls into its own traces, without a word to us.
"""

from __future__ import annotations

from opentelemetry import trace
from temporalio.plugin import SimplePlugin

TRACER = "ackbridge"


def is_tracing() -> bool:
    """Whether there are traces in this process."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def plugins() -> list[SimplePlugin]:
    """The engine's plugins: of every client, and through it of its workers; and of replayers.

    They carry the trace from whoever starts a call into the workflow and its activities. A
    history that was made with them replays without them, and the other way round.
    """
    if not is_tracing():
        return []
    # Imported with the SDK behind it only where it is needed: services import this with our client.
    from temporalio.contrib.opentelemetry import OpenTelemetryPlugin

    return [OpenTelemetryPlugin(add_temporal_spans=True)]
