"""Names on the wire: stable, and usable from any Temporal SDK in any language."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from hashlib import sha256
from typing import Final

# Workflow types
INTEGRATION_CALL: Final = "IntegrationCall"
BULK_CALLS: Final = "BulkCalls"
DELIVER_NOTICE: Final = "DeliverNotice"
REPROCESS_PARKED: Final = "ReprocessParked"
PROVIDER_CONTROL: Final = "ProviderControl"
PURGE_LEDGER: Final = "PurgeLedger"
SETTLE_CALL: Final = "SettleCall"
FORWARD_EVENTS: Final = "ForwardEvents"
CATCH_UP: Final = "CatchUp"

# Signals, query and update of IntegrationCall
PROVIDER_MESSAGE: Final = "provider_message"
PROVIDER_MESSAGES: Final = "provider_messages"
CANCEL: Final = "cancel"
FORCE_ACK: Final = "force_ack"
REPROCESS: Final = "reprocess"
RESOLVE: Final = "resolve"
WRITE_OFF: Final = "write_off"
STATUS: Final = "status"
AWAIT_OUTCOME: Final = "await_outcome"

# Update of BulkCalls, besides those of IntegrationCall
TAKE_ENDS: Final = "take_ends"

PLAIN_START_REFUSED: Final = "plain-start-refused"
"""The patch marker of a call that was started in plain, and refused for it."""

HOST_INDEXED: Final = "host-indexed"
"""Marks in a history that its host sets its own search attributes where nobody else has."""

HOSTED_ACTIVITY_IDS: Final = "hosted-activity-ids"
"""Marks in a history that ids of activities in a host say which call they are for."""

CANCEL_WORKFLOW: Final = "cancel_workflow"
"""A native cancellation, in the audit log."""

# Signals and query of ReprocessParked; PurgeLedger has the query too
PAUSE: Final = "pause"
RESUME: Final = "resume"
STOP: Final = "stop"
PROGRESS: Final = "progress"

# Signal of ForwardEvents
FORWARD: Final = "forward"

# Updates and signals of ProviderControl, which has a query `status` too
SET_FLAG: Final = "set_flag"
FORCE_BREAKER: Final = "force_breaker"
SET_LIMIT: Final = "set_limit"
CONFIGURE: Final = "configure"

# Activities
PREPARE: Final = "prepare"
PERFORM_STEPS: Final = "perform_steps"
RECONSIDER: Final = "reconsider"
SEND: Final = "send"
CORRELATE: Final = "correlate"
LOOK_INBOX: Final = "look_inbox"
ASK_STATUS: Final = "ask_status"
POLL: Final = "poll"
FETCH_RESULT: Final = "fetch_result"
RECORD: Final = "record"
ACKNOWLEDGE: Final = "acknowledge"
CONCLUDE: Final = "conclude"
SETTLE: Final = "settle"
DELIVER: Final = "deliver"
BURY: Final = "bury"
VISIT: Final = "visit"
HOLD_EVENT: Final = "hold_event"
HOLD_MESSAGE: Final = "hold_message"
LIST_EVENTS: Final = "list_events"
OBSERVE: Final = "observe"
THROTTLE: Final = "throttle"
DRAIN: Final = "drain"
STORE_SNAPSHOT: Final = "store_snapshot"
AUDIT: Final = "audit"
SURVEY_PARKED: Final = "survey_parked"
REPROCESS_PAGE: Final = "reprocess_page"
PURGE_PAGE: Final = "purge_page"

# Task queues
TASK_QUEUE: Final = "ackbridge"


def send_queue(provider: str) -> str:
    """Task queue of a provider's requests; has its rate limit, its own workers and its egress."""
    return f"{TASK_QUEUE}.{provider}"


def settle_queue(provider: str) -> str:
    """Task queue of a provider's acknowledgements and status requests."""
    return f"{TASK_QUEUE}.{provider}.settle"


def control_queue(provider: str) -> str:
    """Task queue of what a provider's control does: monitoring, health requests, its decisions."""
    return f"{TASK_QUEUE}.{provider}.control"


def notices_queue(subscriber: str) -> str:
    """Task queue of the notices to a subscriber, so that a slow one delays no other."""
    return f"{TASK_QUEUE}.{subscriber}.notices"


# Failure types of IntegrationCall (the `type` of the workflow's ApplicationFailure)
INVALID_REQUEST: Final = "InvalidRequest"
KEY_REUSED: Final = "KeyReused"
BUSY: Final = "Busy"
CALL_FAILED: Final = "CallFailed"
CALL_CANCELLED: Final = "CallCancelled"

# Failure type of DeliverNotice, besides InvalidRequest
NOT_DELIVERED: Final = "NotDelivered"

_CALL_ID = re.compile(
    r"(?P<provider>[a-z0-9_-]+)\.(?P<operation>[a-z0-9_-]+)\.(?P<key>.+)", re.DOTALL
)


def call_id(provider: str, operation: str, key: str) -> str:
    """The id of a call and of its workflow."""
    return f"{provider}.{operation}.{key}"


def control_id(provider: str) -> str:
    """The workflow id of a provider's control; no call can have it."""
    return f"control.{provider}"


def split_call_id(value: str) -> tuple[str, str, str]:
    """Split a call id into provider, operation and key.

    Raises:
        ValueError: it is not of the form `<provider>.<operation>.<key>`.
    """
    parts = _CALL_ID.fullmatch(value)
    if parts is None:
        raise ValueError(f"{value!r} is not a call id: <provider>.<operation>.<key>")
    return parts["provider"], parts["operation"], parts["key"]


def catch_up_id(provider: str) -> str:
    """The workflow id of a catch-up, one at a time for each provider; no call can have it."""
    return f"catch-up.{provider}"


def events_id(provider: str, subject: str) -> str:
    """The id of the workflow that forwards the events of an object; no call can have it."""
    is_plain = subject.isascii() and subject.isprintable()
    return f"events.{provider}:{subject if is_plain else sha256(subject.encode()).hexdigest()}"


BULK_PREFIX: Final = "bulk:"
"""How the workflow ids of hosts begin; no call can have such an id."""


def bulk_id(name: str) -> str:
    """The workflow id of a host of many calls."""
    return f"{BULK_PREFIX}{name}"


def batch_id(provider: str, name: str) -> str:
    """The workflow id of a batch; no call can have it, because operations contain no colon."""
    return f"batch.{provider}:{name}"


def settle_id(call: str) -> str:
    """The id of the workflow that settles a closed call; no call can have it."""
    return f"settle.{call}"


PURGE_ID: Final = "purge:ledger"
"""The id of the workflow that purges the ledger, and of its schedule; no call can have it."""


def idempotency_key(call: str, cycle: int) -> str:
    """The idempotency key sent to the provider: the same for all attempts of a cycle."""
    return f"{call}:{cycle}"


SHORT_ID_PATTERN: Final = re.compile("[a-z2-7]{26}")
"""What `short_call_id` looks like."""


@lru_cache(maxsize=1024)
def short_call_id(call: str) -> str:
    """The call id in 26 letters and digits, for providers' short fields: 128 bits of its digest."""
    digest = hashlib.sha256(call.encode()).digest()[:16]
    return base64.b32encode(digest).decode().lower().rstrip("=")


def search_token(call: str) -> str:
    """Stands for a call in the search attribute of its host: 60 bits of its digest."""
    return short_call_id(call)[:12]


def hosted_activity_prefix(call: str) -> str:
    """How the ids of a call's activities begin in its host."""
    return f"{search_token(call)}-"


def notice_id(event_id: str) -> str:
    """The id of the workflow that delivers a notice."""
    return f"notice.{event_id}"
