"""TLS with own authorities and client certificates, against a real TLS server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import TypeAdapter

from ackbridge.errors import SecretError
from ackbridge.http.client import Pool, build_client
from ackbridge.security import tls
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import TlsSpec
from ackbridge.security.tls import TlsContext
from tests.support.exchanges import get
from tests.unit.security.test_specs import refusal


class Authority:
    """Signs certificates."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key, is_authority=True)

    def _sign(self, name: x509.Name, key: Any, *, is_authority: bool) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
            )
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(self, folder: Path, name: str) -> None:
        """Write `<name>.pem` and `<name>.key`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        (folder / f"{name}.pem").write_bytes(self._sign(subject, key, is_authority=False))
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.key").write_bytes(text)


@asynccontextmanager
async def tls_server(folder: Path, *, asks: bool) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server whose clients, if it asks, need a certificate of `clients.pem`; and their names."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    if asks:
        context.load_verify_locations(folder / "clients.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    seen: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        certificate = writer.get_extra_info("peercert")
        seen.append(dict(part[0] for part in certificate["subject"]) if certificate else None)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", seen


async def status(url: str, context: TlsContext | None) -> int:
    """The status of one exchange."""
    async with build_client(others=Pool(tls=context)) as client:
        return (await get(client, url)).status


def context(folder: Path, **fields: str) -> TlsContext:
    """The TLS context of a file."""
    return TlsContext(TlsSpec.model_validate(fields), Secrets({}, folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Certificates: of a server, of us, and of the authorities of both."""
    servers, clients = Authority("servers"), Authority("clients")
    (tmp_path / "ca.pem").write_bytes(servers.certificate)
    (tmp_path / "clients.pem").write_bytes(clients.certificate)
    servers.issue(tmp_path, "server")
    clients.issue(tmp_path, "us")
    servers.issue(tmp_path, "stranger")
    return tmp_path


async def test_own_authorities(folder: Path) -> None:
    """A server that only they know is trusted, and by nobody else."""
    async with tls_server(folder, asks=False) as (url, _):
        assert await status(url, context(folder, ca="file:ca.pem")) == 204
        with pytest.raises(httpx.ConnectError):
            await status(url, None)
        with pytest.raises(httpx.ConnectError):
            await status(url, context(folder, ca="file:clients.pem"))


async def test_mutual_tls(folder: Path) -> None:
    """The server sees our certificate; without it, or with another, there is no connection."""
    ours = {"certificate": "file:us.pem", "key": "file:us.key"}
    strange = {"certificate": "file:stranger.pem", "key": "file:stranger.key"}
    async with tls_server(folder, asks=True) as (url, seen):
        assert await status(url, context(folder, ca="file:ca.pem", **ours)) == 204
        for fields in ({}, strange):
            with pytest.raises(httpx.TransportError):
                await status(url, context(folder, ca="file:ca.pem", **fields))

    assert seen == [{"commonName": "us"}]


async def test_changed_files_are_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates are short-lived: a rotation needs no restart."""
    monkeypatch.setattr(tls, "CHECK_EVERY", 0)
    of_pool = context(folder, ca="file:ca.pem")
    first = of_pool()
    assert of_pool() is first

    (folder / "ca.pem").write_bytes((folder / "clients.pem").read_bytes() * 2)

    assert of_pool() is not first


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"ca": "file:absent.pem"}, "file:absent.pem: cannot be read"),
        ({"ca": "file:us.key"}, "file:us.key: has no certificates"),
        ({"certificate": "file:us.pem", "key": "file:server.key"}, "are not a certificate and"),
    ],
)
def test_unusable_files_are_named(folder: Path, fields: dict[str, str], problem: str) -> None:
    """And nothing of them is shown."""
    with pytest.raises(SecretError, match=problem):
        context(folder, **fields)()


def test_a_certificate_needs_its_key() -> None:
    """Both are files."""
    adapter = TypeAdapter(TlsSpec)
    assert "together" in refusal(adapter, {"certificate": "file:a"})
    assert "file:/path" in refusal(adapter, {"ca": "env:A"})
