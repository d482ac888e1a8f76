"""The one data converter of every client, worker and replayer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter

from ackbridge.contracts.wire import UnreadablePayload


class LenientPayloadConverter(PydanticPayloadConverter):
    """Plain JSON and pydantic; what it cannot read becomes `UnreadablePayload` instead of an error.

    An argument that does not convert fails the workflow *task*, which the engine then retries for
    ever, or drops the signal. Where no type is asked for (the arguments of runs, signals and
    updates), the reader validates and can answer properly.

    There is one, though the SDK asks for a new one at every activation of every workflow: it keeps
    no state but its cache of type adapters, each of which takes longer to build than to use.
    """

    _only: ClassVar[LenientPayloadConverter | None] = None

    def __new__(cls) -> Self:
        """The one there is."""
        if cls._only is None:
            made = super().__new__(cls)
            PydanticPayloadConverter.__init__(made)
            cls._only = made
        only: Self = cls._only  # type: ignore[assignment]  # nobody derives from it
        return only

    def __init__(self) -> None:
        """Nothing is left to do."""

    def from_payloads(
        self, payloads: Sequence[Payload], type_hints: list[type] | None = None
    ) -> list[Any]:
        """Convert; without type hints, one by one and never failing."""
        if type_hints is not None:
            return super().from_payloads(payloads, type_hints)
        return [self._read(payload) for payload in payloads]

    def _read(self, payload: Payload) -> Any:
        try:
            (value,) = super().from_payloads([payload], None)
        except Exception:
            encoding = payload.metadata.get("encoding", b"none").decode("ascii", "replace")
            return UnreadablePayload(
                problem=f"the payload does not read as plain JSON ({encoding})"
            )
        return value


DATA_CONVERTER = replace(pydantic_data_converter, payload_converter_class=LenientPayloadConverter)
