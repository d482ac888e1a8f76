"""Requests go to public addresses, and to others only where a file allows them."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import httpx
import pytest

from ackbridge.http.client import EgressRefusedError, Pool, build_client
from ackbridge.http.egress import (
    ANYWHERE,
    PUBLIC,
    Egress,
    is_loopback_host,
    is_public,
    literal_address,
)
from activities.support.retry import network_failure
from tests.support.exchanges import get
from tests.support.serving import serve_raw

NAME = "files.provider.example"


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 -- an address to refuse
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:a00:1::1",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    """Private, loopback, link-local, shared, reserved, multicast, metadata, and within IPv6."""
    assert not is_public(ip_address(address))
    assert not PUBLIC.allows(NAME, address)
    assert ANYWHERE.allows(NAME, address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700:4700::1111"]
)
def test_public_addresses(address: str) -> None:
    """Also where IPv6 contains them."""
    assert PUBLIC.allows(NAME, address)


def test_networks_of_a_file_are_allowed() -> None:
    """And nothing beside them."""
    egress = Egress((ip_network("10.20.0.0/16"), ip_network("fd00::/8")))

    assert egress.allows(NAME, "10.20.1.1")
    assert egress.allows(NAME, "::ffff:10.20.1.1")
    assert egress.allows(NAME, "fd00::1")
    assert not egress.allows(NAME, "10.21.0.1")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "api.localhost", "127.0.0.2", "::1"])
def test_loopback_is_allowed_by_its_own_name(host: str) -> None:
    """Not by any name that resolves to it."""
    assert is_loopback_host(host)
    assert PUBLIC.allows(host, "127.0.0.1")
    assert not PUBLIC.allows(host, "10.0.0.1")


@pytest.mark.parametrize("host", ["0x7f000001", "2130706433", "127.1", "0177.0.0.1"])
def test_odd_forms_of_an_address_are_read(host: str) -> None:
    """As the resolver reads them."""
    assert str(literal_address(host)) == "127.0.0.1"


async def fetch(client: httpx.AsyncClient, url: str, pool: str = "") -> int:
    """The status of one exchange."""
    return (await get(client, url, pool=pool)).status


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """A name server that gives one address after the other, the last one for ever."""
    found = list(answers)
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != NAME:
            return real(host, port, *args, **options)
        address = found.pop(0) if len(found) > 1 else found[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An internal service."""
    writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


async def test_a_name_that_resolves_to_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is sent, unless a pool allows the network."""
    resolve_to(monkeypatch, "127.0.0.1")
    pools = {"allowed": Pool(egress=Egress((ip_network("127.0.0.0/8"),)))}
    async with build_client(pools=pools) as client, serve_raw(answer) as url:
        url = url.replace("127.0.0.1", NAME)
        with pytest.raises(EgressRefusedError) as refused:
            await fetch(client, url)
        assert await fetch(client, url, "allowed") == 204

    failure = network_failure(refused.value)
    assert (failure.reached, str(failure.reason)) == (
        False,
        f"{NAME} has no address that requests may go to",
    )


async def test_a_name_that_changes_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the address that a connection is made to (DNS rebinding)."""
    resolve_to(monkeypatch, "192.0.2.1", "127.0.0.1")
    monkeypatch.setattr("ackbridge.http.egress.is_public", lambda found: str(found) == "192.0.2.1")
    connect_timeout = timedelta(seconds=0.2)
    async with build_client(connect_timeout=connect_timeout) as client, serve_raw(answer) as url:
        url = url.replace("127.0.0.1", NAME)
        with pytest.raises((httpx.ConnectTimeout, httpx.ConnectError)) as first:
            await fetch(client, url)
        with pytest.raises(EgressRefusedError):
            await fetch(client, url, "another pool, with a cache of its own")
    assert not isinstance(first.value, EgressRefusedError)


@pytest.mark.parametrize("host", ["10.255.255.1", "169.254.169.254", "[::ffff:169.254.169.254]"])
async def test_a_literal_address_is_checked_too(host: str) -> None:
    """No resolver sees it."""
    async with build_client() as client:
        with pytest.raises(EgressRefusedError):
            await fetch(client, f"http://{host}:1/")


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.1"])
async def test_an_odd_form_of_an_address_is_never_connected_to(host: str) -> None:
    """Some resolvers would take it for loopback."""
    async with build_client() as client, serve_raw(answer) as url:
        with pytest.raises(httpx.TransportError):
            await fetch(client, url.replace("127.0.0.1", host))


async def test_a_redirect_is_not_followed_anywhere() -> None:
    """So there is no address to check."""

    async def redirect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n")

    async with build_client() as client, serve_raw(redirect) as url:
        assert await fetch(client, url) == 302
