"""Reads the provider's record: the requests, works and acknowledgements of the sandbox."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import httpx

from .records import Event, ProviderRecord, Work

PAGE = 5000
"""Entries of one answer."""


async def read_provider(url: str) -> tuple[dict[str, ProviderRecord], dict[str, Any]]:
    """Read works and events of the provider.

    Returns:
        By call id, and its summary.

    Raises:
        RuntimeError: its event log is incomplete.
    """
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        works = await _pages(client, "/_works")
        entries = await _pages(client, "/_events")
        summary: dict[str, Any] = (await client.get("/_summary")).raise_for_status().json()
    if summary["journal"]["dropped"]:
        raise RuntimeError(f"the provider has forgotten {summary['journal']['dropped']} events")
    return gather(works, entries), summary


async def count_provider(url: str) -> dict[str, Any]:
    """Its summary alone."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        summary: dict[str, Any] = (await client.get("/_summary")).raise_for_status().json()
    return summary


def gather(
    works: Iterable[dict[str, Any]], entries: Iterable[dict[str, Any]]
) -> dict[str, ProviderRecord]:
    """Group works and events by call."""
    its_works: defaultdict[str, list[Work]] = defaultdict(list)
    its_entries: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for told in works:
        work = _work(told)
        its_works[work.call_id].append(work)
    for entry in entries:
        if entry.get("call_id") is not None:
            its_entries[entry["call_id"]].append(entry)
    return {
        call_id: _seen(its_works[call_id], its_entries[call_id])
        for call_id in {**its_works, **its_entries}
    }


async def _pages(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        after = found[-1]["number"] if found else 0
        reply = await client.get(path, params={"after": after, "limit": PAGE})
        page = reply.raise_for_status().json()
        found += page
        if len(page) < PAGE:
            return found


def _work(told: dict[str, Any]) -> Work:
    return Work(
        id=told["id"],
        key=told["idempotency_key"],
        call_id=told["call_id"] or told["idempotency_key"],
        cycle=told["cycle"] or _number(told["idempotency_key"]),
        status=told["status"],
        verdicts=tuple(one["verdict"] for one in told["acknowledgements"]),
        behaviour=told["behaviour"],
    )


def _number(key: str) -> int:
    """Which request of a call it was that had no key, as the sandbox counts them; 0 if unknown."""
    number = key.rpartition("#")[2]
    return int(number) if number.isdecimal() else 0


def _seen(works: list[Work], entries: list[dict[str, Any]]) -> ProviderRecord:
    events = _events(entries)
    told_failed = {event.work for event in events if event.news == "failed" and event.is_taken}
    told_failed |= {
        entry["work"]
        for entry in entries
        if entry["kind"] == "status" and entry.get("stands") == "failed" and entry["status"] < 400
    }
    requests = Counter(e["idempotency_key"] for e in entries if e["kind"] == "request")
    return ProviderRecord(tuple(works), events, requests, frozenset(told_failed))


def _events(entries: list[dict[str, Any]]) -> tuple[Event, ...]:
    sent: Counter[str] = Counter()
    replies: defaultdict[str, Counter[int | None]] = defaultdict(Counter)
    about: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry["kind"] == "callback":
            sent[entry["event_id"]] += 1
            about[entry["event_id"]] = entry
        elif entry["kind"] == "callback_reply":
            replies[entry["event_id"]][entry.get("status")] += 1
    return tuple(
        Event(
            id=event_id,
            news=entry["news"],
            work=entry["work"],
            call_id=entry["call_id"],
            sent=sent[event_id],
            replies=dict(replies[event_id]),
        )
        for event_id, entry in about.items()
    )
