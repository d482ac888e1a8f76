"""JSON Schemas of what callers, operators and subscribers exchange with calls, for any language."""

from __future__ import annotations

from typing import Any, Final, Literal

from .batches import BatchCommand, BatchProgress, BatchRequest
from .breaker import ForceBreaker, SetLimit
from .calls import CallOutcome, CallRequest, CallStatus
from .catch_up import CatchUpProgress, CatchUpRequest
from .control import SetFlag
from .deliveries import NoticeBody
from .messages import ProviderMessage, ProviderMessages
from .settlement import SettleRequest
from .signals import AwaitOutcome, Cancel, ForceAck, Reprocess, Resolve, WriteOff
from .wire import Wire

_SENT_TO_US: Final[dict[str, type[Wire]]] = {
    "call-request": CallRequest,
    "await-outcome": AwaitOutcome,
    "cancel": Cancel,
    "force-ack": ForceAck,
    "reprocess": Reprocess,
    "resolve": Resolve,
    "write-off": WriteOff,
    "provider-message": ProviderMessage,
    "provider-messages": ProviderMessages,
    "settle-request": SettleRequest,
    "batch-request": BatchRequest,
    "batch-command": BatchCommand,
    "set-flag": SetFlag,
    "force-breaker": ForceBreaker,
    "set-limit": SetLimit,
    "catch-up-request": CatchUpRequest,
}
_SENT_BY_US: Final[dict[str, type[Wire]]] = {
    "call-outcome": CallOutcome,
    "call-status": CallStatus,
    "notice": NoticeBody,
    "batch-progress": BatchProgress,
    "catch-up-progress": CatchUpProgress,
}

WIRE_SCHEMAS: Final = (*_SENT_TO_US, *_SENT_BY_US)
"""The names of the schemas."""


def wire_schema(name: str) -> dict[str, Any]:
    """One of `WIRE_SCHEMAS`, in draft 2020-12.

    What we send may get more fields in later versions; readers ignore those they do not know.
    """
    mode: Literal["validation", "serialization"] = (
        "validation" if name in _SENT_TO_US else "serialization"
    )
    model = (_SENT_TO_US | _SENT_BY_US)[name]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode=mode),
    }
