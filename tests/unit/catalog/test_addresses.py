"""Where files let requests go: addresses, networks, and credentials over `http`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackbridge.catalog.catalog import connection_pool
from ackbridge.catalog.loading import load_integration, load_subscriber
from ackbridge.errors import IntegrationFileError
from ackbridge.security.secrets import Secrets
from tests.support.catalog_files import write

OPERATIONS = "operations: {order: {request: {path: /orders}, response: {mode: sync}}}"
BEARER = 'auth: {type: bearer, token: "env:T"}'


def integration(base_url: str, *fields: str, operations: str = OPERATIONS) -> str:
    """A file with these fields."""
    return "\n".join(["provider: acme", f"base_url: {base_url}", *fields, operations, ""])


def subscriber(url: str, *fields: str) -> str:
    """A file with these fields."""
    lines = ["subscriber: shop", f"url: {url}", 'secrets: ["env:S"]', *fields, ""]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "10.0.0.1:8080", "[fd00::1]", "2852039166", "0x7f.1", "0.0.0.1"]
)
def test_an_address_that_is_not_public_is_refused(tmp_path: Path, host: str) -> None:
    """Of a subscriber, of a provider, and of a token endpoint; by `check`, too."""
    token = (
        f"auth: {{type: oauth2, token_url: 'https://{host}/t', client_id: a, client_secret: env:S}}"
    )
    texts = {
        "url": subscriber(f"https://{host}/notices"),
        "base_url": integration(f"https://{host}"),
        "auth.token_url": integration("https://acme.example", token),
    }
    for field, text in texts.items():
        load = load_subscriber if field == "url" else load_integration
        with pytest.raises(IntegrationFileError) as refused:
            load(write(tmp_path, text), {})
        (problem,) = refused.value.problems
        assert (problem.field, "not public" in problem.message) == (field, True)


def test_a_private_host_among_hosts_is_refused(tmp_path: Path) -> None:
    """Names are checked when they are resolved."""
    text = integration("https://acme.example", "hosts: {10.1.2.3: open, files.acme.example: open}")
    with pytest.raises(IntegrationFileError) as refused:
        load_integration(write(tmp_path, text), {})
    assert [problem.field for problem in refused.value.problems] == ["hosts.10.1.2.3"]


def test_private_networks_allow_what_is_in_them(tmp_path: Path) -> None:
    """When the file is loaded, and for each connection."""
    networks = "private_networks: [10.0.0.0/16, 'fd00::/8']"
    of_provider = load_integration(write(tmp_path, integration("https://10.0.1.1", networks)), {})
    of_subscriber = load_subscriber(
        write(tmp_path, subscriber("https://10.0.1.1/notices", networks)), {}
    )

    for part in (of_provider, of_subscriber):
        egress = connection_pool(part, Secrets({}, tmp_path), ()).egress
        assert egress.allows("any.example", "10.0.9.9")
        assert not egress.allows("any.example", "10.1.0.1")
    with pytest.raises(IntegrationFileError, match="network"):
        load_integration(
            write(tmp_path, integration("https://a.example", "private_networks: [x]")), {}
        )


@pytest.mark.parametrize("host", ["127.0.0.1:8701", "localhost", "[::1]:9"])
def test_loopback_needs_no_ceremony(tmp_path: Path, host: str) -> None:
    """Neither an entry nor TLS, for development and tests."""
    load_integration(write(tmp_path, integration(f"http://{host}", BEARER)), {})
    load_subscriber(write(tmp_path, subscriber(f"http://{host}/notices")), {})


WITH_SECRET = "\n".join(
    [
        "operations:",
        "  order:",
        "    request: {path: /orders, headers: {X-Key: \"{secret('env:T')}\"}}",
        "    response: {mode: sync}",
    ]
)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (integration("http://acme.example", BEARER), "base_url"),
        (integration("HTTP://acme.example", operations=WITH_SECRET), "base_url"),
        (
            integration(
                "https://acme.example",
                "auth: [{type: oauth2, token_url: 'http://id.example/t',"
                " client_id: a, client_secret: env:S}]",
            ),
            "auth.0.token_url",
        ),
    ],
)
def test_credentials_over_http_are_refused(tmp_path: Path, text: str, field: str) -> None:
    """Unless the file says that the network can be trusted."""
    with pytest.raises(IntegrationFileError) as refused:
        load_integration(write(tmp_path, text), {})
    (problem,) = refused.value.problems
    assert (problem.field, "over http" in problem.message) == (field, True)

    load_integration(write(tmp_path, f"{text}plain_http: true\n"), {})


def test_without_credentials_http_is_allowed(tmp_path: Path) -> None:
    """There is nothing to read but the payload."""
    load_integration(write(tmp_path, integration("http://acme.example")), {})


def test_links_get_no_credentials_over_http(tmp_path: Path) -> None:
    """A provider on loopback must not send them into a network."""
    hosts = "hosts: {files.example: auth, open.example: open, 'localhost:9': auth}"
    local = load_integration(write(tmp_path, integration("http://127.0.0.1:1", hosts)), {})
    assert local.access_to("http://files.example/x") is None
    assert local.access_to("https://files.example/x") == "auth"
    assert local.access_to("http://open.example/x") == "open"
    assert local.access_to("http://localhost:9/x") == "auth"

    trusted = integration("http://127.0.0.1:1", hosts, "plain_http: true")
    assert (
        load_integration(write(tmp_path, trusted), {}).access_to("http://files.example/") == "auth"
    )
