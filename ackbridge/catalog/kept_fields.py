"""Which headers and query parameters of a callback are kept: those that its file names.

Signatures rarely cover them, and proxies and providers put credentials there: what no expression
reads is neither stored nor shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from .expressions import Expression
from .model import Integration

ALWAYS: Final = frozenset({"traceparent"})
"""Headers that are kept for traces."""

_CREDENTIAL = re.compile(
    r"authorization|cookie|token|secret|passw|credential|api[-_]?key|access[-_]?key"
    r"|^(?:key|auth|pwd|session|session[-_]?id|sid)$",
    re.IGNORECASE,
)


def is_credential(name: str) -> bool:
    """Whether a header or a query parameter of this name is never kept, even if it is named."""
    return _CREDENTIAL.search(name) is not None


def kept_fields(
    integration: Integration, part: str, *, hidden: Iterable[str] = (), always: Iterable[str] = ()
) -> frozenset[str] | None:
    """The fields of `headers` or `query` that the file's expressions over events read.

    None where an expression reads the part as a whole: all but credentials then.

    Args:
        hidden: not these, whatever an expression reads.
    """
    names = {*fields_read(integration, part), *always} - set(hidden)
    if None in names:
        return None
    return frozenset(name for name in names if name and not is_credential(name))


def fields_read(integration: Integration, part: str) -> set[str | None]:
    """The fields of `part` that expressions over events read; None for the whole of it."""
    return {
        name for expression in event_expressions(integration) for name in expression.fields_of(part)
    }


def event_expressions(integration: Integration) -> Iterator[Expression]:
    """Every expression over events, and `each`; not those of handshakes, which are not kept."""
    callbacks = integration.callbacks
    parts = vars(callbacks) if callbacks is not None else {}
    yield from expressions_in([part for name, part in parts.items() if name != "handshakes"])
    yield from expressions_in([one.response for one in integration.operations.values()])


def expressions_in(part: object) -> Iterator[Expression]:
    """Every expression in a part of an integration file."""
    if isinstance(part, Expression):
        yield part
        return
    if isinstance(part, BaseModel):
        part = vars(part)
    if isinstance(part, Mapping):
        part = list(part.values())
    if isinstance(part, list | tuple):
        for inner in part:
            yield from expressions_in(inner)
