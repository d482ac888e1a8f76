"""JSON from outside, read so strictly that every part of ours can carry what it says."""

from __future__ import annotations

import json
import math
from typing import Any

from .wire import InvalidInputError

DEEPEST = 100
"""Levels of nesting: serialisers further in give up at a few hundred."""


def read_json(body: bytes) -> Any:
    """Read JSON that every part of ours can carry.

    Raises:
        InvalidInputError: it is not JSON, has a number without end, half a character, or no bottom.
    """
    try:
        value = _DECODER.decode(body.decode(json.detect_encoding(body)))
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidInputError("body: nested too deeply") from None
    except ValueError as error:
        raise InvalidInputError(f"body: {_why(error)}") from None
    # The number of brackets bounds the depth, so that ordinary bodies are not walked.
    if body.count(b"[") + body.count(b"{") > DEEPEST and _is_deeper(value, DEEPEST):
        raise InvalidInputError("body: nested too deeply")
    return value


def _why(error: ValueError) -> str:
    """What is wrong, without what was sent."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON (line {error.lineno}, column {error.colno})"
    if isinstance(error, UnicodeEncodeError):
        return "a text with half of a surrogate pair"
    return "not JSON in UTF-8 with finite numbers"


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return True


# Made once: `json.loads` makes one for every text that wants more than the defaults.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
