"""Random bytes, texts and JSON values, mostly made by damaging what is valid."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

TOKENS = (
    b"\x00", b"\xff", b"\xfe\xff", b"\xed\xa0\x80", b"\\ud800", b"\r\n", b"\n", b"%00", b"%2f..",
    b"{", b"}", b"[", b"]", b'"', b"'", b":", b",", b"&", b"*a", b"<<: *a", b"!!", b"${X}",
    b"1e999", b"-0", b"9" * 400, b"NaN", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<a>", b"&b;",
    b"(a+)+$", b"[@, @] | ", b"((((((((", b"secret('env:X')", b"A" * 5000,
)  # fmt: skip
NAMES = ("a", "id", "event_id", "type", "call_id", "data", "amount", "", "\x00", "é", "$ref")


class Source:
    """What a seed makes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 -- repeatable, and no secret

    def mutate(self, data: bytes) -> bytes:
        """Damage some bytes: replace, remove, repeat them, or insert what parsers stumble on."""
        changed = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 4, 16))):
            start = self.random.randint(0, len(changed))
            end = min(len(changed), start + self.random.choice((0, 1, 4, 64)))
            match self.random.randrange(5):
                case 0:
                    changed[start:end] = self.random.randbytes(end - start)
                case 1:
                    del changed[start:end]
                case 2:
                    changed[start:start] = self.random.choice(TOKENS)
                case 3:
                    changed[start:start] = changed[start:end] * self.random.choice((2, 10, 1000))
                case _:
                    changed[start:end] = self.random.choice(TOKENS)
        return bytes(changed[:2_000_000])

    def text(self, data: str) -> str:
        return self.mutate(data.encode()).decode("utf-8", "replace")

    def json(self, depth: int = 5) -> Any:
        """A JSON value, sometimes a deep one."""
        if depth == 0 or self.random.random() < 0.3:
            return self.random.choice(
                (None, True, 0, -1, 1.5, 10**30, "", "a", "\ud800", "x" * 1000, "2026-01-01")
            )
        size = self.random.randrange(4)
        if self.random.random() < 0.5:
            return [self.json(depth - 1) for _ in range(size)]
        return {self.random.choice(NAMES): self.json(depth - 1) for _ in range(size)}

    def nested(self) -> bytes:
        """Brackets, deeper than any parser goes."""
        depth = self.random.choice((50, 99, 101, 1000, 100_000))
        left, right = self.random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"<a>", b"</a>")))
        return left * depth + b"1" + right * depth

    def body(self, seeds: Sequence[bytes]) -> bytes:
        """A body: valid, damaged, random, deep, or in another charset."""
        match self.random.randrange(8):
            case 0:
                return self.nested()
            case 1:
                return self.random.randbytes(self.random.choice((0, 1, 100, 10_000)))
            case 2:
                return json.dumps(self.json()).encode(self.random.choice(CHARSETS))
            case 3:
                text = json.dumps(self.json(), ensure_ascii=False)
                return text.encode(self.random.choice(CHARSETS), "surrogatepass")
            case 4:
                return self.random.choice(seeds)
            case _:
                return self.mutate(self.random.choice(seeds))


CHARSETS = ("utf-8", "utf-16", "utf-16-le", "utf-32", "utf-32-be", "utf-8-sig")
