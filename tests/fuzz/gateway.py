"""The gateway in a process of its own, sent damaged requests over sockets."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import psutil

from ackbridge.catalog.loading import load_integration
from ackbridge.contracts.identity import Role
from ackbridge.local.ports import LoopbackPort
from ackbridge.sandbox.signing import Signer, build_signer
from ackbridge.security.http_auth import new_api_key, write_api_keys
from ackbridge.security.secrets import Secrets

from .mutation import Source
from .parsers import CHECKOUT, JSON_SEEDS

SECRET: Final = "fuzz-webhook-secret"
TIMEOUT: Final = 10.0
"""Seconds for one reply; the engine is down, so every event goes to the inbox."""

NO_REPLY: Final = -1

PATHS: Final = (
    "/callbacks/sandbox", "/callbacks/none", "/callbacks/", "/callbacks/sandbox/x", "/healthz",
    "/readyz", "/codec/decode", "/codec/encode", "/metrics", "/", "*", "/callbacks/%00",
)  # fmt: skip
CODEC_PATHS: Final = ("/codec/decode", "/codec/encode")
PAYLOADS: Final = (
    b'{"payloads":[{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"data":"eyJhIjoxfQ=="}]}',
    b'{"payloads":[{"metadata":{"encoding":"YmluYXJ5L2VuY3J5cHRlZA=="},"data":"AQIDBA=="}]}',
)
EVENT: Final = (
    b'{"event_id":"evt_1","call_id":"sandbox.create_order.k","type":"completed","status":"ok"}'
)


class Gateway:
    """A running gateway."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, signer: Signer, api_key: str
    ) -> None:
        self._api_key = api_key
        self._process = psutil.Process(process.pid)
        self._port = port
        self._signer = signer

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(self._process.memory_info().rss)

    @property
    def files(self) -> int:
        return int(self._process.num_fds())

    def send(self, source: Source) -> int:
        """Send one request; returns the status, 0 for a connection that was closed without one.

        Raises:
            AssertionError: a server error other than a 503, no reply in time, or the process died.
        """
        raw, is_whole = self._request(source)
        status = self._exchange(raw, is_whole=is_whole)
        if (status >= 500 and status != 503) or status == NO_REPLY:
            raise AssertionError(f"status {status} for {raw[:2000]!r}")
        if not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE:
            raise AssertionError(f"the gateway died of {raw[:2000]!r}")
        return status

    def check(self) -> None:
        """It still answers, quickly."""
        started = time.monotonic()
        status = self._exchange(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if status != 200 or time.monotonic() - started > TIMEOUT / 2:
            raise AssertionError(f"/healthz: {status} after {time.monotonic() - started:.1f} s")

    def _request(self, source: Source) -> tuple[bytes, bool]:
        """A request, and whether its head is as HTTP has it."""
        choice = source.random.choice
        body = source.body((EVENT, *JSON_SEEDS))
        method = choice(("POST", "POST", "POST", "GET", "HEAD", "PUT", "OPTIONS", "X" * 50))
        path = choice(PATHS) + choice(("", "", "?token=x", "?a=" + "b" * 9000, "?%ff&&=="))
        headers = {"host": "x", "connection": "close", "content-type": choice(_TYPES)}
        if source.random.random() < 0.6:
            path = PATHS[0]
            headers |= self._signer.sign(body, "m", datetime.now(UTC))
        elif source.random.random() < 0.5:
            path, body = choice(CODEC_PATHS), source.body(PAYLOADS)
            headers["authorization"] = f"Bearer {self._api_key}"
        if source.random.random() < 0.1:
            headers["authorization"] = source.text(f"Bearer {self._api_key}")
        if source.random.random() < 0.1:
            headers["content-encoding"] = choice(("gzip", "deflate", "gzip, gzip", "br"))
        if source.random.random() < 0.1:
            headers[choice(("cookie", "x-forwarded-for", "expect", "upgrade"))] = source.text("a")
        headers["content-length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items())]
        head = "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n"
        # Half of the heads arrive as they are, so that what is behind them is reached.
        is_whole = source.random.random() < 0.5
        return (head if is_whole else source.mutate(head)) + body, is_whole

    def _exchange(self, raw: bytes, *, is_whole: bool = True) -> int:
        """Send bytes, and end the connection behind them if more may be expected."""
        reply = b""
        try:
            with socket.create_connection(("127.0.0.1", self._port), TIMEOUT) as connection:
                connection.sendall(raw)
                if not is_whole:
                    connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65_536):
                    reply += chunk
        except TimeoutError:
            return NO_REPLY
        except OSError:
            # It was closed while we sent, with or without a reply.
            pass
        parts = reply[:64].split(b" ", 2)
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0


_TYPES = ("application/json", "application/xml", "text/plain; charset=utf-16", "\x00", "")


@contextlib.contextmanager
def running_gateway(folder: Path) -> Iterator[Gateway]:
    """Start it with the shipped files, an SQLite ledger in `folder`, and no engine."""
    reserved = LoopbackPort()
    port = reserved.number
    roles, expires_at = frozenset(Role), datetime.now(UTC) + timedelta(days=1)
    api_key, entry = new_api_key("fuzz", "fuzz", roles, expires_at)
    write_api_keys(folder / "keys.json", (entry,))
    environ = {
        **os.environ,
        "ACKBRIDGE_AUTH_API_KEYS": str(folder / "keys.json"),
        "ACKBRIDGE_CODEC": "true",
        "ACKBRIDGE_CODEC_ORIGINS": "http://127.0.0.1:8233",
        "ACKBRIDGE_ENCRYPTION_KEYS": "fuzz=env:FUZZ_KEY",
        "FUZZ_KEY": base64.b64encode(os.urandom(32)).decode(),
        "ACKBRIDGE_LEDGER_URL": f"sqlite:///{folder}/ledger.db",
        "SANDBOX_WEBHOOK_SECRET": SECRET,
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
    }
    command = [sys.executable, "-m", "ackbridge", "gateway", "--port", str(port)]
    log = (folder / "gateway.log").open("wb")
    with (
        log,
        subprocess.Popen(command, env=environ, cwd=CHECKOUT, stdout=log, stderr=log) as started,
    ):
        try:
            spec = load_integration(CHECKOUT / "integrations" / "sandbox.yaml", {}).callbacks
            assert spec is not None
            secrets = Secrets({"SANDBOX_WEBHOOK_SECRET": SECRET}, Path())
            gateway = Gateway(started, port, build_signer(spec.verify, secrets), api_key)
            _wait(gateway)
            yield gateway
        finally:
            started.terminate()


def _wait(gateway: Gateway) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError, AssertionError):
            gateway.check()
            return
        time.sleep(0.1)
    raise AssertionError("the gateway did not start")
