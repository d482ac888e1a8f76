"""A copy of an integration file that leads to a simulated provider, with secrets made up."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ackbridge.catalog.loading import load_integration
from ackbridge.catalog.model import Integration, Operation
from ackbridge.catalog.yaml_document import expand_variables, parse_yaml, walk_texts

from .file_based_provider import TOKEN_PATH

_NOT_EXPANDED = frozenset({"payload_schema"})
_FASTEST = 1000
"""Requests per second of a provider whose limits are not what is tried out."""

_POLLS_EVERY = "1s"
_LONGEST_POLLED = 6.0
"""Seconds in which an answer is asked for: somebody works all the time, so none can be skipped."""
_LONGEST_EXCHANGE = 2.0
"""Seconds of one exchange: these pass in real time."""
_LONGEST_DEBT = 3 * 3600.0
"""Seconds for which an acknowledgement is owed: every try of it takes real time."""


@dataclass(frozen=True)
class SandboxedCopy:
    """The copy.

    Attributes:
        folder: of integration files, with nothing else in it.
        environment: the secrets behind `env:` references.
        secrets_root: the folder of those behind `file:` references.
    """

    folder: Path
    secrets_root: Path
    environment: Mapping[str, str] = field(repr=False)


def make_stand_in(
    file: Path, environ: Mapping[str, str], folder: Path, provider_url: str
) -> SandboxedCopy:
    """Write the copy.

    Changed are the addresses, the secrets, flags (all on), a rate limit (lifted), and what would
    make a run long without telling anything: in `poll` mode the pause between two questions (a
    second) and the deadline (6 s at the most), the timeouts of single exchanges (2 s at the most),
    and how long an acknowledgement is owed (3 h at the most).

    Raises:
        IntegrationFileError: the file does not validate as it is.
    """
    integration = load_integration(file, environ)
    value, _ = expand_variables(parse_yaml(file.read_text("utf-8")).value, environ, _NOT_EXPANDED)
    copy = _Copy(integration, folder / "secrets", provider_url)
    copied = copy.of(value)
    integrations = folder / "integrations"
    integrations.mkdir()
    # JSON is YAML, and says of every text that it is one.
    (integrations / "copy.yaml").write_text(json.dumps(copied), "utf-8")
    return SandboxedCopy(integrations, folder / "secrets", copy.environment)


_PATIENT_BREAKER = {"error_rate": 1, "min_volume": 1_000_000, "consecutive": 1_000_000}
"""Every fault is played, one after the other; a breaker would give such a provider a pause."""


class _Copy:
    def __init__(self, integration: Integration, secrets_root: Path, provider_url: str) -> None:
        self._integration = integration
        self._secrets_root = secrets_root
        self._provider_url = provider_url
        self.environment: dict[str, str] = {}

    def of(self, value: dict[str, Any]) -> dict[str, Any]:
        """The whole document."""
        value = _escaped(value)
        value["base_url"] = self._provider_url + urlsplit(value["base_url"]).path
        value.pop("flag", None)
        value["breaker"] = _PATIENT_BREAKER
        for part in ("auth", "callbacks"):
            if part in value:
                value[part] = self._with_own_secrets(value[part])
        if "token_url" in (value.get("auth") or {}):
            value["auth"]["token_url"] = self._provider_url + TOKEN_PATH
        if "requests_per_second" in (value.get("limits") or {}):
            value["limits"]["requests_per_second"] = _FASTEST
        for name, operation in value["operations"].items():
            operation.pop("flag", None)
            self._hurry(operation, self._integration.operations[name])
        return value

    def _hurry(self, written: dict[str, Any], operation: Operation) -> None:
        """Shorten what passes in real time."""
        receipt, acknowledge = operation.receipt, operation.acknowledge
        timeout = min(receipt.timeout.total_seconds(), _LONGEST_EXCHANGE)
        written["receipt"] = {**(written.get("receipt") or {}), "timeout": timeout}
        if acknowledge is not None:
            written["acknowledge"] |= {
                "timeout": min(acknowledge.timeout.total_seconds(), _LONGEST_EXCHANGE),
                "within": min(acknowledge.within.total_seconds(), _LONGEST_DEBT),
            }
        if operation.response.mode == "poll":
            written["response"] |= {"poll": {"every": _POLLS_EVERY}, "deadline": _polled(operation)}

    def _with_own_secrets(self, part: Any) -> Any:
        standard = {"standard-webhooks"} & {text for _, text in walk_texts(part)}
        return _mapped(part, lambda text: self._made_up(text, is_standard=bool(standard)))

    def _made_up(self, text: str, *, is_standard: bool) -> str:
        """A secret behind every reference; other texts stay as they are."""
        kind, _, where = text.partition(":")
        if kind not in ("env", "file") or not where:
            return text
        made = secrets.token_bytes(24)
        value = f"whsec_{base64.b64encode(made).decode()}" if is_standard else made.hex()
        if kind == "env":
            self.environment.setdefault(where, value)
            return text
        # Wherever the real one is: this one belongs to the run.
        here = Path(where.lstrip("/").replace("..", "_"))
        path = self._secrets_root / here
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value, "utf-8")
        return f"file:{here}"


def _polled(operation: Operation) -> dict[str, float]:
    deadline = operation.response.deadline
    spans = {"initial": deadline.initial, "floor": deadline.floor, "ceiling": deadline.ceiling}
    return {name: min(span.total_seconds(), _LONGEST_POLLED) for name, span in spans.items()}


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def _escaped(value: Any) -> Any:
    """What looks like a variable now is a text that shall stay one."""
    if isinstance(value, dict):
        return {
            key: inner if key in _NOT_EXPANDED else _escaped(inner) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return value.replace("${", "$${") if isinstance(value, str) else value
