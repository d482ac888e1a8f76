"""Use a client that was generated from the document; runs in the environment of the generator."""

from __future__ import annotations

import os
import uuid

from calls_client import AuthenticatedClient
from calls_client.api.calls import cancel_call, get_call, list_calls, start_call
from calls_client.api.operators import list_held, list_owed
from calls_client.api.providers import get_flag, list_providers, set_flag
from calls_client.models import (
    CallBody,
    CallStatus,
    FlagBody,
    FlagState,
    FlagView,
    OutcomeStatus,
    ProblemDetails,
    ReasonBody,
)

ORDER = {"amount": 5, "currency": "EUR"}


def main() -> None:
    url, key = os.environ["API_URL"], os.environ["API_KEY"]
    with AuthenticatedClient(base_url=url, token=key, timeout=90) as client:
        _calls(client)
        _problems(client)
        _settings(client)
    print("the generated client works")


def _calls(client: AuthenticatedClient) -> None:
    # A slash, a space and a quotation mark: what clients encode differently.
    name = f'in/voice "{uuid.uuid4().hex}"'
    body = CallBody(provider="sandbox", operation="create_order", payload=ORDER)
    done = start_call.sync(client=client, body=body, idempotency_key=name, prefer="wait=60")
    assert isinstance(done, CallStatus), done
    assert done.outcome is not None
    assert done.outcome.status is OutcomeStatus.COMPLETED
    read = get_call.sync(done.call_id, client=client)
    assert isinstance(read, CallStatus)
    assert read.call_id == done.call_id
    seen = list_calls.sync(client=client, provider="sandbox", limit=1)
    assert [one.call_id for one in seen.calls] == [done.call_id]
    late = cancel_call.sync(done.call_id, client=client, body=ReasonBody(reason="too late"))
    assert isinstance(late, ProblemDetails)
    assert late.type_.endswith(":call-ended"), late
    assert list_owed.sync(client=client).acknowledgements == []
    assert list_held.sync(client=client).messages == []


def _problems(client: AuthenticatedClient) -> None:
    body = CallBody(provider="sandbox", operation="create_ordr", payload=ORDER)
    refused = start_call.sync(client=client, body=body, idempotency_key="k")
    assert isinstance(refused, ProblemDetails)
    assert refused.status == 422
    assert refused.type_.endswith(":invalid-request")


def _settings(client: AuthenticatedClient) -> None:
    listed = list_providers.sync(client=client)
    assert [one.name for one in listed.providers if one.name == "sandbox"]
    where = {"operation": "quote", "environment": "generated"}
    read = get_flag.sync_detailed("sandbox", client=client, **where)
    tag = read.headers["etag"]
    off = FlagBody(state=FlagState.OFF, reason="a drill")
    changed = set_flag.sync("sandbox", client=client, body=off, if_match=tag, **where)
    assert isinstance(changed, FlagView), changed
    assert changed.value.state is FlagState.OFF
    refused = set_flag.sync_detailed("sandbox", client=client, body=off, if_match=tag, **where)
    assert refused.status_code == 412


if __name__ == "__main__":
    main()
