"""Which spans there are: those of calls, as far as OpenTelemetry's own sampler wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from ackbridge.contracts import names

_FOR_EVER: Final = f":{names.PROVIDER_CONTROL}"


class CallsOnly(Sampler):
    """Leaves out the controls of providers: each would be one trace that grows for months.

    What they do in their turn is left out by the other sampler, as the children of what is.
    """

    def __init__(self, sampler: Sampler) -> None:
        """Take the sampler that decides about the rest."""
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide about a span by its name, or let the other one decide."""
        if name.endswith(_FOR_EVER):
            return SamplingResult(Decision.DROP)
        return self._sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        """Its name, and that of the other one."""
        return f"CallsOnly({self._sampler.get_description()})"
