"""Python code of an integration: the last resort."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.loading import integration_warnings, load_integration
from ackbridge.catalog.model import Integration
from ackbridge.catalog.rendering import OutboundRequest, apply_hook, render_request
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import SecretError
from ackbridge.security.secrets import Secrets
from tests.support.catalog_files import CONTEXT, problems, write

FILE = """\
provider: acme
base_url: https://acme.example/api
hosts: {other.example: open}
hook: acme_hook.py
operations:
  order:
    request: {path: /orders, body: payload}
    response: {mode: sync}
"""

CODE = """\
import dataclasses, hashlib, hmac, json

def render(request, context):
    body = json.loads(request.content)
    return dataclasses.replace(request, content=str(body["amount"]).encode())

def sign(request, secret):
    key = secret("env:KEY").encode()
    return {"X-Signature": hmac.new(key, request.content, hashlib.sha256).hexdigest()}

def read(body, headers):
    return {"reversed": body.decode()[::-1], "type": headers["content-type"]}
"""
SECRETS = Secrets({"KEY": "s3cret"}, Path())


def integration(folder: Path, code: str) -> Integration:
    """An integration with this code."""
    write(folder, code, "acme_hook.py")
    return load_integration(write(folder, FILE), {})


def sent(of: Integration, secrets: Secrets = SECRETS) -> OutboundRequest:
    """The request that is sent."""
    return apply_hook(of, render_request(of, of.operations["order"], CONTEXT), CONTEXT, secrets)


def test_requests_are_rendered_and_signed(tmp_path: Path) -> None:
    """The signature covers what `render` has made, and its key is resolved for each request."""
    of = integration(tmp_path, CODE)
    request = sent(of)
    assert of.code.refs == {"env:KEY"}
    assert request.content == b"5"
    assert request.headers["X-Signature"] == hmac.new(b"s3cret", b"5", "sha256").hexdigest()
    assert request.headers["Idempotency-Key"] == "acme.order.k1:2"


def test_bodies_are_read(tmp_path: Path) -> None:
    """Expressions see what `read` returns."""
    code = integration(tmp_path, CODE).code
    read = code.read_body(b"abc", {"content-type": "x"})
    assert read == {"reversed": "cba", "type": "x"}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def sign(request, secret): raise KeyError('s3cret')",
            "sign failed with KeyError in line 1",
        ),
        ("def sign(request, secret): return 5", "sign must return headers"),
        ("def render(request, context): return None", "render must return a request"),
        (
            "import dataclasses\ndef render(request, context):\n"
            "    return dataclasses.replace(request, url='https://evil.example/')",
            "evil.example is not one of hosts",
        ),
    ],
)
def test_failing_code_sends_nothing(tmp_path: Path, code: str, message: str) -> None:
    """The error says where, and contains no value."""
    with pytest.raises(InvalidInputError) as caught:
        sent(integration(tmp_path, code))
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_open_hosts_get_no_authentication(tmp_path: Path) -> None:
    """Also where the code chooses the host."""
    code = CODE.replace("content=str", "url='https://other.example/x', content=str")
    assert sent(integration(tmp_path, code)).is_open


def test_missing_secret_is_one(tmp_path: Path) -> None:
    """Another worker may have it."""
    with pytest.raises(SecretError, match="env:KEY: is not set"):
        sent(integration(tmp_path, CODE), Secrets({}, Path()))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "there is no file acme_hook.py beside"),
        ("x = 1", "defines none of render, sign, read"),
        ("import nothing_there", "cannot be run: ModuleNotFoundError"),
        ("def read(body): ...", "read must take 2 arguments"),
        ("async def read(body, headers): ...", "not async"),
        ("read = 5", "must be a function"),
    ],
)
def test_unusable_files_are_problems(tmp_path: Path, code: str | None, message: str) -> None:
    """With line, column and field, when the integration file is loaded."""
    if code is not None:
        write(tmp_path, code, "acme_hook.py")
    (problem,) = problems(tmp_path, FILE)
    assert (problem.line, problem.field) == (4, "hook")
    assert message in problem.message


@pytest.mark.parametrize("name", ["../x.py", "/etc/x.py", "x", "a/b.py"])
def test_the_file_is_beside_the_integration(tmp_path: Path, name: str) -> None:
    """No other code is run."""
    (problem,) = problems(tmp_path, FILE.replace("acme_hook.py", name))
    assert (problem.field, "does not match" in problem.message) == ("hook", True)


def test_check_warns_of_code(tmp_path: Path) -> None:
    """It is the last resort, and is told so."""
    integration(tmp_path, CODE)
    warnings: list[Any] = integration_warnings(tmp_path / "acme.yaml", {})
    assert ("hook", 4) in [(one.field, one.line) for one in warnings]
