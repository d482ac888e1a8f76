"""Parsers, verifiers and expressions: they raise what they document, in time, or succeed."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from ackbridge.catalog.expressions import Expression, ExpressionError
from ackbridge.catalog.loading import load_integration
from ackbridge.catalog.payload_schema import PayloadSchema
from ackbridge.catalog.wire_formats import read_xml
from ackbridge.catalog.yaml_document import YamlError, parse_yaml
from ackbridge.contracts.wire import InvalidInputError, read_json
from ackbridge.errors import IntegrationFileError, SecretError, SignatureError
from ackbridge.http.client import ResponseTooLargeError, decode_content
from ackbridge.security.identity import identity_of_token
from tests.support.callbacks import STRIPE, stripe, verifier

from .mutation import Source

CHECKOUT: Final = Path(__file__).resolve().parents[2]
MAX_DECODED: Final = 1_000_000
"""Bytes."""

JSON_SEEDS = (
    b'{"id": "evt_1", "type": "payment", "data": {"object": {"amount": 5, "ok": true}}}',
    b'[{"a": [1, 2.5, null, "x"]}, {"a": []}]',
)
XML_SEEDS = (b'<?xml version="1.0"?><a x="1"><b>text</b><b/><c:d xmlns:c="u">1</c:d></a>',)
EXPRESSIONS = (
    "data.object.amount == `5` && type == 'payment' || !id",
    "replace(join('-', keys(@)), '-', id)",
    "multiply(data.object.amount, '19.99')",
    "a[?b == 'x'].{c: d, e: [f, @]} | [0]",
    "sha256(to_string(@))",
    "from_json(from_base64(base64(id)))",
    "map(&[a, b], items) | sort(@)",
)
SCHEMAS: tuple[dict[str, Any], ...] = (
    {"type": "object", "properties": {"a": {"pattern": "^(a|b)+$"}}, "required": ["a"]},
    {"anyOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"items": {"$ref": "#"}}}},
    {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
    {"uniqueItems": True, "contains": {"const": 1}, "maxItems": 3},
)


@dataclass(frozen=True)
class Target:
    """A function under test.

    Attributes:
        allowed: the errors that it documents.
    """

    name: str
    run: Callable[[Source], object]
    allowed: tuple[type[Exception], ...]


def targets(folder: Path) -> list[Target]:
    """All targets; `folder` is for files."""
    files = [path.read_text() for path in sorted((CHECKOUT / "integrations").glob("*.yaml"))]
    return [
        Target("read_json", _json, (InvalidInputError,)),
        Target("read_xml", _xml, (InvalidInputError,)),
        Target("parse_yaml", lambda s: parse_yaml(s.text(s.random.choice(files))), (YamlError,)),
        Target("load_integration", _integration(folder, files), (IntegrationFileError,)),
        Target("expression", _expression, (ValueError,)),
        Target("payload_schema", _schema, (ValueError,)),
        Target("decode_content", _content, (httpx.DecodingError, ResponseTooLargeError)),
        Target("verify", _verify, (SignatureError,)),
        Target("identity_of_token", lambda s: identity_of_token(s.text("a.eyJzdWIiOiJhIn0.c")), ()),
    ]


def _json(source: Source) -> None:
    value = read_json(source.body(JSON_SEEDS), is_lenient=source.random.random() < 0.5)
    # What was accepted can be stored.
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def _xml(source: Source) -> None:
    json.dumps(read_xml(source.body(XML_SEEDS)), ensure_ascii=False).encode()


def _integration(folder: Path, files: list[str]) -> Callable[[Source], object]:
    path = folder / "fuzzed.yaml"

    def load(source: Source) -> None:
        path.write_text(source.text(source.random.choice(files)), "utf-8", newline="")
        load_integration(path, {})

    return load


def _expression(source: Source) -> None:
    expression = Expression(source.text(source.random.choice(EXPRESSIONS)))
    for document in (source.json(), json.loads(JSON_SEEDS[0]), {"id": "x" * 100_000}):
        # There are no secrets here.
        with contextlib.suppress(ExpressionError, SecretError):
            expression.evaluate(document)


def _schema(source: Source) -> None:
    text = source.text(json.dumps(source.random.choice(SCHEMAS)))
    with contextlib.suppress(RecursionError):
        schema = json.loads(text)
        if isinstance(schema, dict):
            PayloadSchema.parse(schema).check(source.json())


def _content(source: Source) -> None:
    codings = source.random.choices(("gzip", "deflate", "x-gzip", "br", ""), k=1)
    body = source.mutate(source.random.choice(_COMPRESSED))
    assert len(decode_content(body, codings, MAX_DECODED)) <= max(MAX_DECODED, len(body))


def _verify(source: Source) -> None:
    now = int(datetime.now(UTC).timestamp())
    body = source.body(JSON_SEEDS)
    signed = stripe("OLD", now, body)
    headers = {
        source.random.choice((name, name.upper(), "x")): source.text(value)
        for name, value in signed.items()
    }
    verifier(STRIPE, now).verify(headers, body)
    # A damaged header may still hold the whole signature, in any form of hexadecimal.
    (valid,) = signed.values()
    found = re.search("v1=([0-9a-f]{64})", valid)
    assert found is not None
    assert any(found[1] in "".join(value.lower().split()) for value in headers.values())


def _compressed() -> list[bytes]:
    seeds = [JSON_SEEDS[0], b"a" * 500_000, os.urandom(2000)]
    return [
        *(gzip.compress(seed) for seed in seeds),
        *(zlib.compress(seed) for seed in seeds),
        gzip.compress(gzip.compress(seeds[1])),
        gzip.compress(seeds[0]) * 50,
    ]


_COMPRESSED = _compressed()
