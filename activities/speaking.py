"""One exchange with a provider: rendered, authenticated, bounded, read as a document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from ackbridge.catalog import Outbound
from ackbridge.contracts import StepFailure
from ackbridge.security import TokenRefused
from ackbridge.transport import Reply, TooLarge, exchange

from .failures import classified, failure, is_retryable, retry_after, transport_failure
from .provisions import Provisions

MAX_REPLY_BYTES = 1024 * 1024
"""What a provider may answer; more is cut off and counts as no answer."""

LONGEST_RETRY_AFTER = timedelta(hours=1)
"""A provider may ask for patience, but not for more than this."""

SHOWN = 200
"""Characters of a provider's own words that are repeated to operators."""


@dataclass(frozen=True)
class Answer:
    """What the provider answered: its status, and its body as a document for expressions."""

    status: int
    document: dict[str, Any]


async def speak(
    provisions: Provisions,
    provider: str,
    outbound: Outbound,
    within: timedelta,
    unanswered: StepFailure,
) -> Answer:
    """Send one request and read the answer.

    Args:
        within: the time for everything, connection and body included.
        unanswered: which failure it is when there is no usable answer.

    Raises:
        ApplicationError: retryable for network trouble, 408, 425, 429 and 5xx.
    """
    try:
        with classified():
            reply = await exchange(
                provisions.client,
                method=outbound.method,
                url=outbound.url,
                headers=outbound.headers,
                content=outbound.content,
                auth=provisions.auths[provider],
                timeout=within,
                max_bytes=MAX_REPLY_BYTES,
            )
    except (httpx.HTTPError, TimeoutError) as error:
        raise transport_failure(unanswered, error) from None
    except TooLarge as error:
        raise failure(unanswered, str(error), final=False, reached=True) from None
    except TokenRefused as error:
        raise failure(unanswered, str(error), final=False) from None
    if is_retryable(reply.status):
        delay = retry_after(
            reply.headers.get("retry-after"), provisions.clock(), LONGEST_RETRY_AFTER
        )
        raise failure(
            unanswered,
            f"the provider answered {reply.status}",
            final=False,
            reached=reply.status not in (425, 429),
            retry_after=delay,
        )
    return Answer(reply.status, _document(reply))


def refusal(answer: Answer) -> str:
    """A provider's refusal in one line: its status and, where it says one, its message."""
    body = answer.document.get("body")
    error = body.get("error", body) if isinstance(body, dict) else None
    words = error.get("message") if isinstance(error, dict) else error
    said = f": {words[:SHOWN]}" if isinstance(words, str) else ""
    return f"the provider refused with {answer.status}{said}"


def _document(reply: Reply) -> dict[str, Any]:
    try:
        body = json.loads(reply.body) if reply.body.strip() else None
    except ValueError:
        body = reply.body.decode("utf-8", "replace")
    fields = body if isinstance(body, dict) else {}
    return {
        **fields,
        "body": body,
        "headers": dict(reply.headers),
        "query": {},
        "status": reply.status,
    }
