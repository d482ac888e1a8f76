"""The steps as Celery tasks over states in PostgreSQL, as one writes them by hand.

The row of a call says how far it is; what was lost between two tasks, `sweep` finds by its age.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import Any
from urllib.parse import urlsplit

import psycopg
from celery import Celery
from redis import Redis

DEADLINE = 30
"""Seconds after which a call is taken up again."""
DONE = "done"
"""The Redis channel on which ended calls are told."""
CREATE = (
    "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, payload JSONB NOT NULL,"
    " state TEXT NOT NULL, reference TEXT, response JSONB,"
    " changed_at TIMESTAMPTZ NOT NULL DEFAULT now())"
)
_SWEEP_EVERY = 5.0

app = Celery("benchmark", broker=os.environ["PEER_REDIS"])
app.conf.update(
    task_ignore_result=True,
    # A task that dies with its worker is done again; all of them may be.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    beat_schedule={"sweep": {"task": "sweep", "schedule": _SWEEP_EVERY}},
    beat_schedule_filename="beat",
)


RETRIED: dict[str, Any] = {
    "autoretry_for": (OSError, http.client.HTTPException),
    "retry_backoff": True,
    "max_retries": 10,
}


class Connections:
    """Those of one worker process, made at their first use: after the fork."""

    database: psycopg.Connection[Any] | None = None
    provider: http.client.HTTPConnection | None = None
    redis: Redis | None = None


@app.task(name="send", **RETRIED)
def send(key: str, payload: dict[str, Any]) -> None:
    """Send the order; its response comes to the edge."""
    order = {"call_id": key, "callback_url": os.environ["PEER_CALLBACK"], **payload}
    reference = _ask_provider("/v1/orders", order, key)["id"]
    _change(
        "UPDATE calls SET reference = %s, state = 'sent', changed_at = now()"
        " WHERE key = %s AND state = 'new'",
        (reference, key),
    )


@app.task(name="acknowledge", **RETRIED)
def acknowledge(key: str, reference: str) -> None:
    """Confirm the response, and tell whoever waits that the call has ended."""
    told = {"status": "success", "call_id": key}
    _ask_provider(f"/v1/orders/{reference}/acknowledgements", told, f"{key}:success")
    _change("UPDATE calls SET state = 'done', changed_at = now() WHERE key = %s", (key,))
    if Connections.redis is None:
        Connections.redis = Redis.from_url(os.environ["PEER_REDIS"])
    Connections.redis.publish(DONE, key)


@app.task(name="sweep")
def sweep() -> None:
    """Take up what has not moved for too long."""
    old = _change(
        "UPDATE calls SET changed_at = now() WHERE state <> 'done'"
        " AND changed_at < now() - make_interval(secs => %s)"
        " RETURNING key, payload, response",
        (DEADLINE,),
    ).fetchall()
    for key, payload, response in old:
        if response is None:
            send.delay(key, payload)
        else:
            acknowledge.delay(key, response["order"]["id"])


def _change(statement: str, values: tuple[Any, ...]) -> psycopg.Cursor[Any]:
    if Connections.database is None:
        Connections.database = psycopg.connect(os.environ["PEER_DATABASE"], autocommit=True)
    return Connections.database.execute(statement.encode(), values)


def _ask_provider(path: str, document: dict[str, Any], key: str) -> dict[str, Any]:
    """Post once, and once more on a new connection where the provider has closed an idle one.

    Raises:
        OSError, HTTPException: there was no answer, or no 2xx.
    """
    headers = {
        "Authorization": f"Bearer {os.environ['SANDBOX_API_KEY']}",
        "Content-Type": "application/json",
        "Idempotency-Key": key,
    }
    for is_last in (False, True):
        if Connections.provider is None:
            address = urlsplit(os.environ["PEER_PROVIDER"]).netloc
            Connections.provider = http.client.HTTPConnection(address, timeout=30)
        try:
            Connections.provider.request("POST", path, json.dumps(document), headers)
            reply = Connections.provider.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException):
            Connections.provider.close()
            Connections.provider = None
            if is_last:
                raise
            continue
        if not 200 <= reply.status < 300:
            raise http.client.HTTPException(f"{path}: {reply.status}")
        answer: dict[str, Any] = json.loads(body)
        return answer
    raise AssertionError("the second try returns or raises")
