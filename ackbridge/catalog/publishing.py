"""The JSON Schema of integration files, for completion in editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from .schema import Integration

_DURATION = r"^(\d+(\.\d+)?(ms|s|m|h|d) *)+$"


class _AsWritten(GenerateJsonSchema):
    """Fields as people write them: time spans are `30s`, expressions are texts."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:  # noqa: ARG002 -- the signature is pydantic's
        return {
            "anyOf": [
                {"type": "string", "pattern": _DURATION},
                {"type": "number", "minimum": 0},
            ]
        }

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        written = super().default_schema(schema)
        # Defaults of whole parts repeat what their own fields say.
        if isinstance(written.get("default"), dict):
            written.pop("default")
        return written

    def encode_default(self, dft: Any) -> Any:
        """A default as one would write it."""
        seconds = getattr(dft, "total_seconds", None)
        if seconds is not None:
            return _span(seconds())
        text = getattr(dft, "text", None)
        return text.strip("`") == "true" if text is not None else super().encode_default(dft)


def integration_json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of integration files, as a new plain dict."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Integration.model_json_schema(schema_generator=_AsWritten),
        "title": "Ackbridge integration file",
    }


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
