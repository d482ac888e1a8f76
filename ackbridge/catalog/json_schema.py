"""The published JSON Schemas of the files that users write, for completion in editors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from .examples import Example
from .fields import FilePart
from .model import Integration
from .subscribers import Subscriber

_TITLES: dict[type[FilePart], str] = {
    Integration: "Ackbridge integration file",
    Subscriber: "Ackbridge subscriber file",
    Example: "Ackbridge example: a recorded message of a provider",
}


class _Generator(GenerateJsonSchema):
    """Writes defaults the way they are written in files, such as `30s`."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        generated = super().default_schema(schema)
        # The default of a whole part repeats the defaults of its fields.
        if isinstance(generated.get("default"), dict):
            generated.pop("default")
        return generated

    def encode_default(self, dft: Any) -> Any:
        seconds = getattr(dft, "total_seconds", None)
        if seconds is not None:
            return _duration(seconds())
        expression = getattr(dft, "text", None)
        return expression.strip("`") == "true" if expression else super().encode_default(dft)


@cache
def json_schema_of(model: type[FilePart]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a kind of file; cached, so it must not be changed."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(schema_generator=_Generator),
        "title": _TITLES[model],
    }


def field_names(schema: dict[str, Any], path: Sequence[str | int]) -> list[str]:
    """The fields that a file may contain at a path, in alphabetical order.

    Args:
        path: keys and list positions; may include names of union members, which are not in files.
    """
    parts = list(_variants(schema, schema))
    for step in path:
        inner = [found for part in parts for found in _children(part, step, schema)]
        parts = inner or parts
    return sorted({name for part in parts for name in part.get("properties", {})})


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _children(
    part: dict[str, Any], step: str | int, root: dict[str, Any]
) -> Iterator[dict[str, Any]]:
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
