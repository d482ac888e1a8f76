"""A copy of an integration file that points to a simulated provider, with generated secrets."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ackbridge.catalog.catalog import secret_refs
from ackbridge.catalog.loading import load_integration
from ackbridge.catalog.model import Integration, Operation
from ackbridge.catalog.yaml_document import expand_variables, parse_yaml, walk_texts

from .file_based_provider import TOKEN_PATH

_NOT_EXPANDED = frozenset({"payload_schema"})
_RATE_LIMIT = 1000
"""Requests per second: limits are not under test."""

_POLL_INTERVAL = "1s"
_MAX_POLL_DEADLINE = 6.0
"""Seconds: polling runs activities all the time, so its time cannot be skipped."""
_MAX_TIMEOUT = 2.0
"""Seconds of one HTTP exchange, which pass in real time."""
_MAX_OWED = 3 * 3600.0
"""Seconds for which an acknowledgement is owed; each attempt takes real time."""
_RECONCILED = {"every": "1h", "for": "3h"}
"""How the truth is found out about an unknown end; each status request takes real time."""


@dataclass(frozen=True)
class SandboxedCopy:
    """The copy, alone in `folder`, and the secrets of its `env:` and `file:` references."""

    folder: Path
    secrets_root: Path
    environment: Mapping[str, str] = field(repr=False)


def make_copy(
    file: Path, environ: Mapping[str, str], folder: Path, provider_url: str
) -> SandboxedCopy:
    """Write the copy.

    It differs in the addresses, the secrets, flags (all on), rate limits (lifted), the breaker
    (never opens), and what would only make a run longer: in `poll` mode the interval (1 s) and the
    deadline (at most 6 s), the timeouts of single exchanges (at most 2 s), how long an
    acknowledgement is owed (at most 3 h), and how long an unknown end is reconciled (3 h).

    Raises:
        IntegrationFileError: the file does not validate.
    """
    integration = load_integration(file, environ)
    value, _ = expand_variables(parse_yaml(file.read_text("utf-8")).value, environ, _NOT_EXPANDED)
    copy = _Copy(integration, folder / "secrets", provider_url)
    copied = copy.document(value)
    integrations = folder / "integrations"
    integrations.mkdir()
    # JSON is YAML in which every text is quoted.
    (integrations / "copy.yaml").write_text(json.dumps(copied), "utf-8")
    if integration.hook is not None:
        shutil.copy(file.parent / integration.hook, integrations)
    return SandboxedCopy(integrations, folder / "secrets", copy.environment)


_CLOSED_BREAKER = {"error_rate": 1, "min_volume": 1_000_000, "consecutive": 1_000_000}
"""Never opens: the scenarios inject more faults than it would allow."""


class _Copy:
    def __init__(self, integration: Integration, secrets_root: Path, provider_url: str) -> None:
        self._integration = integration
        self._secrets_root = secrets_root
        self._provider_url = provider_url
        self.environment: dict[str, str] = {}

    def document(self, value: dict[str, Any]) -> dict[str, Any]:
        # Variables are expanded already, and must not be expanded again.
        value = _mapped(value, lambda text: text.replace("${", "$${"), besides=_NOT_EXPANDED)
        value["base_url"] = self._provider_url + urlsplit(value["base_url"]).path
        value.pop("flag", None)
        value.pop("examples", None)
        value["breaker"] = _CLOSED_BREAKER
        for part in ("auth", "callbacks"):
            if part in value:
                value[part] = self._with_generated_secrets(value[part])
        auth = value.get("auth")
        specs: list[dict[str, Any]] = auth if isinstance(auth, list) else [auth] if auth else []
        for spec in specs:
            if "token_url" in spec:
                spec["token_url"] = self._provider_url + TOKEN_PATH
        for ref in secret_refs(self._integration):
            self._replace_secret(ref, is_standard=False)
        for event in ("events", "list"):
            # Nothing is sent to subscribers, and nothing is listed.
            (value.get("callbacks") or {}).pop(event, None)
        if "requests_per_second" in (value.get("limits") or {}):
            value["limits"]["requests_per_second"] = _RATE_LIMIT
        for name, operation in value["operations"].items():
            operation.pop("flag", None)
            self._shorten(operation, self._integration.operations[name])
        return value

    def _shorten(self, document: dict[str, Any], operation: Operation) -> None:
        """Shorten what passes in real time."""
        receipt, acknowledge = operation.receipt, operation.acknowledge
        timeout = min(receipt.timeout.total_seconds(), _MAX_TIMEOUT)
        document["receipt"] = {**(document.get("receipt") or {}), "timeout": timeout}
        if acknowledge is not None:
            document["acknowledge"] |= {
                "timeout": min(acknowledge.timeout.total_seconds(), _MAX_TIMEOUT),
                "within": min(acknowledge.within.total_seconds(), _MAX_OWED),
            }
        if operation.reconcile is not None:
            document["reconcile"] = _RECONCILED
        if operation.response.mode == "poll" or operation.response.poll is not None:
            document["response"] |= {
                "poll": {"every": _POLL_INTERVAL},
                "deadline": _polled(operation),
            }

    def _with_generated_secrets(self, part: Any) -> Any:
        standard = {"standard-webhooks"} & {text for _, text in walk_texts(part)}
        return _mapped(part, lambda text: self._replace_secret(text, is_standard=bool(standard)))

    def _replace_secret(self, text: str, *, is_standard: bool) -> str:
        """Generate a secret for a reference; other texts stay as they are."""
        kind, _, where = text.partition(":")
        if kind not in ("env", "file") or not where:
            return text
        random = secrets.token_bytes(24)
        value = f"whsec_{base64.b64encode(random).decode()}" if is_standard else random.hex()
        if kind == "env":
            self.environment.setdefault(where, value)
            return text
        # Below the root of the run, wherever the real one is.
        here = Path(where.lstrip("/").replace("..", "_"))
        path = self._secrets_root / here
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value, "utf-8")
        return f"file:{here}"


def _polled(operation: Operation) -> dict[str, float]:
    deadline = operation.response.deadline
    spans = {"initial": deadline.initial, "floor": deadline.floor, "ceiling": deadline.ceiling}
    return {name: min(span.total_seconds(), _MAX_POLL_DEADLINE) for name, span in spans.items()}


def _mapped(value: Any, change: Callable[[str], str], besides: Collection[str] = ()) -> Any:
    """The value with its texts changed, except below the keys `besides`."""
    if isinstance(value, dict):
        return {
            key: inner if key in besides else _mapped(inner, change, besides)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_mapped(inner, change, besides) for inner in value]
    return change(value) if isinstance(value, str) else value
