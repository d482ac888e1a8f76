"""Reads lines such as `job: 17`."""

from __future__ import annotations

from collections.abc import Mapping


def read(body: bytes, _headers: Mapping[str, str]) -> dict[str, str]:
    """The fields of a text; what has no colon is not one of this provider's."""
    return dict(line.split(": ", 1) for line in body.decode("ascii").splitlines())
