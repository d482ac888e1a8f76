"""TLS with a provider's own authority, and with a certificate of ours."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import httpx

from ackbridge.errors import SecretError

from .secrets import Secrets
from .specs import TlsSpec

CHECK_EVERY = 5.0
"""Seconds between two looks at whether a file has changed."""


class TlsContext:
    """The TLS context for new connections; read again when its files change.

    Own authorities replace the usual ones.
    """

    def __init__(self, spec: TlsSpec, secrets: Secrets) -> None:
        self._spec = spec
        self._secrets = secrets
        self._context: ssl.SSLContext | None = None
        self._seen: tuple[tuple[int, int], ...] = ()
        self._checked_at = 0.0

    def __call__(self) -> ssl.SSLContext:
        """The context.

        Raises:
            SecretError: a file cannot be read or used; nothing was sent.
        """
        now = time.monotonic()
        if self._context is not None and now - self._checked_at < CHECK_EVERY:
            return self._context
        seen = tuple(map(self._state, (self._spec.ca, self._spec.certificate, self._spec.key)))
        if self._context is None or seen != self._seen:
            self._context = self._load()
            self._seen = seen
        self._checked_at = now
        return self._context

    def _load(self) -> ssl.SSLContext:
        ca, certificate, key = self._spec.ca, self._spec.certificate, self._spec.key
        if ca is None:
            context = httpx.create_ssl_context(trust_env=False)
        else:
            context = _context_of(ca, self._path(ca))
        if certificate is not None and key is not None:
            try:
                context.load_cert_chain(self._path(certificate), self._path(key), lambda: b"")
            except (OSError, ValueError):
                problem = f"{certificate}, {key}: are not a certificate and its private key in PEM"
                raise SecretError(problem) from None
        return context

    def _path(self, ref: str) -> Path:
        return self._secrets.path(ref)

    def _state(self, ref: str | None) -> tuple[int, int]:
        if ref is None:
            return (0, 0)
        try:
            found = self._path(ref).stat()
        except OSError as error:
            raise SecretError(f"{ref}: cannot be read ({error.strerror})") from None
        return (found.st_mtime_ns, found.st_size)


def _context_of(ref: str, path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        raise SecretError(f"{ref}: has no certificates in PEM") from None
