"""Where a provider is told to call back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ackbridge.catalog.loading import load_catalog
from ackbridge.contracts.calls import CallRequest
from ackbridge.errors import IntegrationFileError, SecretError
from ackbridge.security.callback_urls import CallbackUrls
from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import UrlVerify
from activities.support.dependencies import Dependencies

FILE = """\
provider: linked
base_url: http://127.0.0.1:9
callbacks:
  verify: {type: url, secrets: ["env:URL_SECRET"]}
  event_key: id
operations:
  ask:
    request: {method: POST, path: /asks, body: {hook: "{callback_url}"}}
    response: {mode: callback, success: done}
"""
REQUEST = CallRequest(provider="linked", operation="ask", key="k-1", payload={})


def dependencies(folder: Path, environ: dict[str, str]) -> Dependencies:
    (folder / "linked.yaml").write_text(FILE)
    nothing = cast("Any", SimpleNamespace())
    return Dependencies(
        catalog=load_catalog(folder, {}),
        ledger=nothing,
        http=nothing,
        auths={},
        clock=nothing,
        public_url="https://us.example/",
        snapshots=nothing,
        admission=nothing,
        has_search_attributes=False,
        secrets=Secrets(environ, folder),
    )


def test_each_call_has_its_own_url(tmp_path: Path) -> None:
    """The token is that of the call, and what a provider repeats of it is removed."""
    deps = dependencies(tmp_path, {"URL_SECRET": "s" * 32})
    url = str(deps.template_context(REQUEST, 1)["callback_url"])
    other = deps.template_context(REQUEST.model_copy(update={"key": "k-2"}), 1)["callback_url"]
    base, _, token = url.rpartition("/")

    assert base == "https://us.example/callbacks/linked"
    assert other != url
    spec = UrlVerify(type="url", secrets=("env:URL_SECRET",))
    assert CallbackUrls(spec, "linked", deps.secrets).call_of(token) == REQUEST.call_id
    assert Redactor().clean(f"hook {url} is down", 500) == f"hook {base}/*** is down"
    assert Redactor().known.remove({"hook": [url]}) == {"hook": [f"{base}/***"]}
    assert Redactor().known.remove_bytes(url.encode()) == f"{base}/***".encode()


def test_a_missing_secret_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    """It is one of the credentials that a worker needs."""
    deps = dependencies(tmp_path, {})
    assert ("", "env:URL_SECRET") in deps.credentials["linked"]
    with pytest.raises(SecretError):
        deps.template_context(REQUEST, 1)


def test_the_url_has_to_be_sent(tmp_path: Path) -> None:
    """Without it no callback can be verified."""
    (tmp_path / "linked.yaml").write_text(FILE.replace("{callback_url}", "https://us.example"))
    with pytest.raises(IntegrationFileError, match=r"needs \{callback_url\}"):
        load_catalog(tmp_path, {})
