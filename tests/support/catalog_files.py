"""Integration files for tests: a small provider, loaded the way every file is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ackbridge.catalog.loading import load_integration
from ackbridge.catalog.model import Integration
from ackbridge.errors import IntegrationFileError, Problem

ROOT = Path(__file__).parents[2]

CONTEXT: dict[str, Any] = {
    "payload": {"amount": 5, "name": "Zoë & co", "tags": ["a", "b"], "gift": True, "none": None},
    "metadata": {"tenant": "t-1"},
    "call": {
        "id": "acme.order.k1",
        "provider": "acme",
        "operation": "order",
        "key": "k1",
        "cycle": 2,
        "idempotency_key": "acme.order.k1:2",
    },
    "callback_url": "https://us.example/callbacks/acme",
    "reference": "r 1/2",
    "response": {"total": 9},
    "reason": "the provider stayed silent",
}


def write(folder: Path, text: str, name: str = "acme.yaml") -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def acme(folder: Path, **operation: Any) -> Integration:
    """A provider with one operation `order`, made of these parts; `sync` unless they say more."""
    parts = {"request": {"path": "/orders"}, "response": {"mode": "sync"}, **operation}
    document: dict[str, Any] = {
        "provider": "acme",
        "base_url": "https://acme.example/api/",
        "callbacks": {
            "verify": {"type": "header", "name": "X-Token", "secrets": ["env:TOKEN"]},
            "event_key": "id",
        },
        "operations": {"order": parts},
    }
    return load_integration(write(folder, yaml.safe_dump(document, sort_keys=False)), {})


def problems(
    folder: Path, text: str, environ: Mapping[str, str] | None = None
) -> tuple[Problem, ...]:
    """What is wrong with a file; empty when it is fine."""
    try:
        load_integration(write(folder, text), environ or {})
    except IntegrationFileError as error:
        return error.problems
    return ()


def answer(body: Any, status: int = 200) -> dict[str, Any]:
    """The document of an HTTP answer."""
    fields = body if isinstance(body, dict) else {}
    return {**fields, "body": body, "headers": {}, "query": {}, "status": status}


def callback(body: Any) -> dict[str, Any]:
    """The document of a callback."""
    fields = body if isinstance(body, dict) else {}
    return {**fields, "body": body, "headers": {"x-event": "h-1"}, "query": {"q": "q-1"}}
