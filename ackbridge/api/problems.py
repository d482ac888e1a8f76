"""Errors as problem details (RFC 9457). docs/problems.md describes every type."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ackbridge.contracts.wire import InvalidInputError, Wire
from ackbridge.errors import (
    AckbridgeError,
    BatchNotFoundError,
    CallEndedError,
    CallError,
    CallNotFoundError,
    ConfigurationError,
    InvalidRequestError,
    KeyReusedError,
    UnavailableError,
    UnknownNameError,
)

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:problem-type:ackbridge:"
RETRY_AFTER: Final = 5
"""Seconds; sent with a 503."""


@dataclass(frozen=True)
class ProblemType:
    """One kind of problem; its name never changes.

    Attributes:
        name: the last part of its URI, and its heading in docs/problems.md.
        title: the same for every occurrence.
    """

    name: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        return TYPE_PREFIX + self.name


UNREADABLE: Final = ProblemType("unreadable", 400, "The request cannot be read")
UNAUTHENTICATED: Final = ProblemType("unauthenticated", 401, "No valid credential")
FORBIDDEN: Final = ProblemType("forbidden", 403, "A role is missing")
NOT_FOUND: Final = ProblemType("not-found", 404, "There is no such resource")
METHOD: Final = ProblemType("method-not-allowed", 405, "The resource has no such method")
CONFLICT: Final = ProblemType("conflict", 409, "The state of the resource does not allow it")
CALL_ENDED: Final = ProblemType("call-ended", 409, "The call has ended")
CHANGED: Final = ProblemType("changed", 412, "The resource has changed")
TOO_LARGE: Final = ProblemType("too-large", 413, "The body is too large")
INVALID: Final = ProblemType("invalid-request", 422, "The request is not valid")
KEY_REUSED: Final = ProblemType("key-reused", 422, "The key belongs to another payload")
DEFECT: Final = ProblemType("internal-error", 500, "A defect of Ackbridge")
UNAVAILABLE: Final = ProblemType("unavailable", 503, "A part of Ackbridge does not answer")

TYPES: Final = (
    UNREADABLE,
    UNAUTHENTICATED,
    FORBIDDEN,
    NOT_FOUND,
    METHOD,
    CONFLICT,
    CALL_ENDED,
    CHANGED,
    TOO_LARGE,
    INVALID,
    KEY_REUSED,
    DEFECT,
    UNAVAILABLE,
)

# The first match counts.
_ERRORS: Final[tuple[tuple[type[Exception], ProblemType], ...]] = (
    (KeyReusedError, KEY_REUSED),
    (CallNotFoundError, NOT_FOUND),
    (BatchNotFoundError, NOT_FOUND),
    (UnknownNameError, NOT_FOUND),
    (CallEndedError, CALL_ENDED),
    (InvalidRequestError, INVALID),
    (InvalidInputError, INVALID),
    (CallError, CONFLICT),
    (UnavailableError, UNAVAILABLE),
)

_STATUSES: Final = {
    one.status: one for one in (*reversed(TYPES), CONFLICT, INVALID) if one is not CALL_ENDED
}
"""What an `HTTPException` means that has only a status."""


class InvalidField(Wire):
    """What is wrong with one field of a request, without its value."""

    field: str
    problem: str


class ProblemDetails(Wire):
    """A problem.

    Attributes:
        type: a URI that names the kind of problem, described in docs/problems.md.
        detail: what is wrong with this request.
        errors: by field, where the request does not validate.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[InvalidField, ...] = ()


class ProblemError(Exception):
    """Answers a request with a problem that has no error of its own."""

    def __init__(self, kind: ProblemType, detail: str) -> None:
        self.kind = kind
        super().__init__(detail)


def problem(
    kind: ProblemType,
    detail: str,
    headers: Mapping[str, str] | None = None,
    errors: tuple[InvalidField, ...] = (),
    status: int | None = None,
) -> Response:
    """The response of a problem.

    Args:
        status: in place of the type's, for the less common codes of the framework.
    """
    code = status or kind.status
    details = ProblemDetails(
        type=kind.uri, title=kind.title, status=code, detail=detail, errors=errors
    )
    known = {"Retry-After": str(RETRY_AFTER)} if code == UNAVAILABLE.status else {}
    return Response(
        details.model_dump_json(exclude_defaults=True),
        status_code=code,
        headers={"Cache-Control": "no-store", **known, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def type_of(error: Exception) -> ProblemType:
    """What an error of ours is over HTTP."""
    return next((kind for known, kind in _ERRORS if isinstance(error, known)), DEFECT)


def handle_problems(app: FastAPI) -> None:
    """Let an application answer with problem details, whatever goes wrong."""

    async def ours(_request: Request, error: Exception) -> Response:
        kind = type_of(error)
        if kind is DEFECT:
            return _defect(error)
        return problem(kind, str(error))

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 -- as it is registered below
        return _invalid(error)

    async def http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 -- as it is registered below
        kind = _STATUSES.get(error.status_code, UNREADABLE)
        return problem(kind, error.detail, error.headers, status=error.status_code)

    async def stated(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)  # noqa: S101 -- as it is registered below
        return problem(error.kind, str(error))

    async def defect(_request: Request, error: Exception) -> Response:
        return _defect(error)

    for known in (AckbridgeError, InvalidInputError):
        app.add_exception_handler(known, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ProblemError, stated)
    app.add_exception_handler(Exception, defect)


def _invalid(error: RequestValidationError) -> Response:
    # Texts of pydantic name fields and rules; the values themselves are not repeated.
    errors = tuple(
        InvalidField(
            field=".".join(str(part) for part in one["loc"]),
            problem=str(one["msg"]).removeprefix("Value error, "),
        )
        for one in error.errors()
    )
    detail = "; ".join(f"{one.field}: {one.problem}" for one in errors)
    return problem(INVALID, detail, errors=errors)


def _defect(error: Exception) -> Response:
    if isinstance(error, ConfigurationError):
        log.error("a request needs another configuration: %s", error)
    else:
        log.error("a request failed", exc_info=error)
    return problem(DEFECT, "the log of the API says more")


def documented(*kinds: ProblemType) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route, for the description of the API."""
    by_status: dict[int | str, list[ProblemType]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": "; ".join(f"{one.title} (`{one.name}`)" for one in listed),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        }
        for status, listed in by_status.items()
    }
