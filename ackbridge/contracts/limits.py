"""Limits and patterns of what goes over the wire, each stated once, and the fields made of them."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

NAME_PATTERN: Final = r"^[a-z0-9_-]+$"
"""Names of providers, operations and subscribers."""

LANGUAGE_PATTERN: Final = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
"""A language tag of BCP 47, such as `de`, `en-US` or `zh-Hant-TW`."""

MAX_NAME_LENGTH: Final = 64

MAX_KEY_LENGTH: Final = 512
"""Characters of an idempotency key, an event key or a reference; every index takes them."""

MAX_CALL_ID_LENGTH: Final = MAX_NAME_LENGTH + 1 + MAX_NAME_LENGTH + 1 + MAX_KEY_LENGTH
"""Characters of `<provider>.<operation>.<key>`."""

MAX_ACTOR_LENGTH: Final = 200

MAX_CODE_LENGTH: Final = 200
"""Characters of a provider's own code of a failure."""

MAX_REQUEST_BYTES: Final = 512 * 1024
"""Bytes of a whole `CallRequest` as canonical JSON; Temporal rejects payloads over 2 MiB."""

LARGE_BODY_BYTES: Final = 256 * 1024
"""Bytes of JSON from which a provider's body is stored in the ledger and passed by reference."""

MAX_RESULT_BYTES: Final = 1024 * 1024
"""Bytes of an activity result or a signal as JSON."""

MAX_REASON_LENGTH: Final = 2000
"""Characters of a reason given by an operator or a provider."""

MAX_ERROR_LENGTH: Final = 500
"""Characters of an error message that are kept in a workflow's history."""

MAX_SUMMARY_LENGTH: Final = 200
"""Characters of a summary that the Temporal UI shows for a workflow, an activity or a timer."""

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME_LENGTH)]
"""The name of a provider, an operation or a subscriber."""

Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN, max_length=35)]
"""A language tag, such as `de` or `en-US`."""

Identifier = Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH)]
"""An idempotency key or an event key."""

Actor = Annotated[str, Field(min_length=1, max_length=MAX_ACTOR_LENGTH)]
"""Who requests something: a person or a service."""

Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_LENGTH)]
"""Why somebody requests something."""

ParkedReason = Annotated[str, Field(min_length=1, max_length=64)]
"""Why a call is parked, such as `no_response`."""
