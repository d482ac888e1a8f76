"""The copy of a file that conformance runs with."""

from __future__ import annotations

from pathlib import Path

from ackbridge.catalog.loading import load_integration
from ackbridge.conformance.sandboxed_copy import make_copy
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import HeaderAuth, HmacVerify, OAuth2Auth

CONFORMANCE = Path(__file__).parents[2] / "integration" / "conformance" / "files"
PROVIDER = "http://127.0.0.1:9"


def test_addresses_point_to_the_simulated_provider(tmp_path: Path) -> None:
    """The path of the real base URL stays."""
    file = CONFORMANCE / "norddeich.yaml"
    copy = make_copy(file, {"NORDDEICH_URL": "https://eu.example/v3"}, tmp_path, PROVIDER)
    integration = load_integration(copy.folder / "copy.yaml", {})
    assert integration.base_url == f"{PROVIDER}/v3/api"
    assert integration.flag == {}


def test_token_url(tmp_path: Path) -> None:
    """Tokens come from the simulated provider too."""
    copy = make_copy(CONFORMANCE / "reports.yaml", {}, tmp_path, PROVIDER)
    (auth,) = load_integration(copy.folder / "copy.yaml", {}).auth
    assert isinstance(auth, OAuth2Auth)
    assert auth.token_url.startswith(PROVIDER)


def test_secrets_are_generated(tmp_path: Path) -> None:
    """The real ones are not read, in the environment or in files."""
    environ = {"NORDDEICH_KEY": "the real one"}
    copy = make_copy(CONFORMANCE / "norddeich.yaml", environ, tmp_path, PROVIDER)
    integration = load_integration(copy.folder / "copy.yaml", {})
    secrets = Secrets(copy.environment, copy.secrets_root)
    (auth,) = integration.auth
    assert isinstance(auth, HeaderAuth)
    assert secrets.resolve(auth.value) != "the real one"
    assert integration.callbacks is not None
    assert isinstance(integration.callbacks.verify, HmacVerify)
    for reference in integration.callbacks.verify.secrets:
        assert len(secrets.resolve(reference)) > 20


def test_texts_that_look_like_variables_stay_texts(tmp_path: Path) -> None:
    """`$${` is expanded once, and not again in the copy; patterns are left alone."""
    file = tmp_path / "acme.yaml"
    file.write_text(
        "provider: acme\nbase_url: https://acme.example\noperations:\n  do:\n"
        "    payload_schema: {type: string, description: 'such as ${NAME}'}\n"
        "    request: {path: /do, headers: {X-A: '$${{NAME}}'}}\n    response: {mode: sync}\n"
    )
    folder = tmp_path / "run"
    folder.mkdir()
    copy = make_copy(file, {}, folder, PROVIDER)
    before = load_integration(file, {}).operations["do"]
    after = load_integration(copy.folder / "copy.yaml", {}).operations["do"]
    assert after.request.headers == before.request.headers
    assert after.payload_schema == before.payload_schema
