"""The data converter of every client, worker and replayer; see the package for when this can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter

from ackbridge.contracts.wire import UnreadablePayload


class LenientPayloadConverter(PydanticPayloadConverter):
    """Plain JSON and pydantic; a payload that does not convert becomes `UnreadablePayload`.

    Where a type is asked for, errors stay errors. The arguments of runs, signals and updates are
    converted without a type: their reader validates them and fails the workflow, or reports the
    problem, instead of the workflow task.

    One instance serves the process. The SDK asks for a new one at every activation of every
    workflow, but the only state is the cache of type adapters, each of which takes longer to build
    than to use.
    """

    _instance: ClassVar[LenientPayloadConverter | None] = None

    def __new__(cls) -> Self:
        if cls._instance is None:
            instance = super().__new__(cls)
            PydanticPayloadConverter.__init__(instance)
            cls._instance = instance
        only: Self = cls._instance  # type: ignore[assignment]  # the class has no subclasses
        return only

    def __init__(self) -> None:
        """Do nothing: `__new__` has initialised the instance."""

    def from_payloads(
        self, payloads: Sequence[Payload], type_hints: list[type] | None = None
    ) -> list[Any]:
        """Convert; without type hints each payload by itself, and without raising."""
        if type_hints is not None:
            return super().from_payloads(payloads, type_hints)
        return [self._convert(payload) for payload in payloads]

    def _convert(self, payload: Payload) -> Any:
        try:
            (value,) = super().from_payloads([payload], None)
        except Exception:
            encoding = payload.metadata.get("encoding", b"none").decode("ascii", "replace")
            return UnreadablePayload(
                problem=f"the payload does not read as plain JSON ({encoding})"
            )
        return value


DATA_CONVERTER = replace(pydantic_data_converter, payload_converter_class=LenientPayloadConverter)
