"""The JSON Schemas of the files that people write, for completion in editors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from .fields import FilePart
from .model import Integration
from .subscribers import Subscriber


class _AsWritten(GenerateJsonSchema):
    """Defaults as people write them: time spans are `30s`."""

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
    return _json_schema(Integration, "Ackbridge integration file")


def subscriber_json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of subscriber files, as a new plain dict."""
    return _json_schema(Subscriber, "Ackbridge subscriber file")


def _json_schema(kind: type[FilePart], title: str) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **kind.model_json_schema(schema_generator=_AsWritten),
        "title": title,
    }


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def known_fields(schema: dict[str, Any], path: Sequence[str | int]) -> list[str]:
    """The fields that are known at a path of a file, in alphabetical order.

    Args:
        schema: of the file.
        path: keys and list positions; names of union members may be among them.
    """
    parts = list(_variants(schema, schema))
    for step in path:
        below = [found for part in parts for found in _below(part, step, schema)]
        # The name of a union member is not a step in the file.
        parts = below or parts
    return sorted({name for part in parts for name in part.get("properties", {})})


published_integration = cache(integration_json_schema)
"""The schema of integration files; not to be changed."""

published_subscriber = cache(subscriber_json_schema)
"""The schema of subscriber files; not to be changed."""


def _below(part: dict[str, Any], step: str | int, root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    tagged = part.get("discriminator", {}).get("mapping", {})
    if step in tagged:
        yield from _variants({"$ref": tagged[step]}, root)
    for inner in (
        part.get("properties", {}).get(step),
        *part.get("patternProperties", {}).values(),
    ):
        if inner is not None:
            yield from _variants(inner, root)


def _variants(part: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in part:
        yield from _variants(root["$defs"][part["$ref"].rsplit("/", 1)[-1]], root)
        return
    yield part
    if "discriminator" not in part:
        for inner in part.get("anyOf", []):
            yield from _variants(inner, root)
