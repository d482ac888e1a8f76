"""Resolve secret references."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

from ackbridge.errors import SecretError

REFERENCE_PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f]+)$"
"""`env:NAME` or `file:/path`; a relative path starts at `ACKBRIDGE_SECRETS_ROOT`."""

WEBHOOK_PREFIX = "whsec_"
"""Of Standard Webhooks secrets."""

_REFERENCE = re.compile(REFERENCE_PATTERN[:-1] + r"\Z")
_MAX_FILE_BYTES = 64 * 1024

REMOVED = "***"
"""Replaces a secret."""

SHORTEST_IN_DATA = 8
"""Characters of a secret that is replaced in a provider's data; shorter ones may be ordinary words.
"""

_KEPT_FOR_LATER = 4
"""Secrets that were in use before: an answer may be about an earlier request."""


def is_secret_ref(text: str) -> bool:
    return _REFERENCE.match(text) is not None


_current: ContextVar[Secrets | None] = ContextVar("current", default=None)


def current_secret(ref: str) -> str:
    """Resolve a reference by the `Secrets` that are used in this task; raises `SecretError`."""
    secrets = _current.get()
    if secrets is None:
        raise SecretError(f"{ref}: secrets are not available here")
    return secrets.resolve(ref)


class Secrets:
    """Resolves `env:NAME` and `file:/path`.

    Nothing is cached: a file is read for every use, so that a rotation takes effect without a
    restart. Neither the repr nor the errors of this class contain values.
    """

    def __init__(self, environ: Mapping[str, str], root: Path) -> None:
        """Resolve `env:` in `environ`, and relative `file:` paths from `root`."""
        self._environ = environ
        self._root = root

    def use_in_task(self) -> None:
        """Let expressions resolve references, in this task of asyncio and those it starts."""
        _current.set(self)

    def resolve(self, ref: str) -> str:
        """Return the secret behind a reference, without the newline at the end of a file.

        Raises:
            SecretError: it is missing, unreadable or empty; the text names the reference only.
        """
        if not is_secret_ref(ref):
            # Not repeated: it may be a secret, pasted instead of a reference.
            raise SecretError("not a secret reference: expected env:NAME or file:/path")
        kind, _, name = ref.partition(":")
        value = self._variable(ref, name) if kind == "env" else self._file(ref, name)
        if not value.strip():
            # Anybody could sign with an empty key.
            raise SecretError(f"{ref}: is empty")
        return value

    def text(self, plain_or_ref: str) -> str:
        """Return a plain text unchanged, and resolve a reference; raises as `resolve`."""
        return self.resolve(plain_or_ref) if is_secret_ref(plain_or_ref) else plain_or_ref

    def path(self, ref: str) -> Path:
        """The file behind a `file:` reference, for libraries that read files themselves."""
        return self._root / ref.removeprefix("file:")

    def webhook_key(self, ref: str) -> bytes:
        """The key of a Standard Webhooks secret, base64 after a `whsec_`; raises `SecretError`."""
        secret = self.resolve(ref).removeprefix(WEBHOOK_PREFIX)
        try:
            key = base64.b64decode(secret + "==")
        except ValueError:
            key = b""
        if not key:
            raise SecretError(f"{ref}: is not a Standard Webhooks secret (whsec_...)")
        return key

    def _variable(self, ref: str, name: str) -> str:
        value = self._environ.get(name)
        if value is None:
            raise SecretError(f"{ref}: is not set")
        return value

    def _file(self, ref: str, path: str) -> str:
        try:
            with (self._root / path).open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise SecretError(f"{ref}: cannot be read ({error.strerror})") from None
        if len(content) > _MAX_FILE_BYTES:
            raise SecretError(f"{ref}: is longer than {_MAX_FILE_BYTES} bytes")
        try:
            return content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SecretError(f"{ref}: is not UTF-8 text") from None


CALLBACK_TOKEN_PREFIX: Final = "ackcb_"  # noqa: S105 -- not a secret
"""What the tokens of callback URLs begin with, so that they are recognised wherever they are."""

CALLBACK_TOKEN: Final = re.compile(CALLBACK_TOKEN_PREFIX + r"[\w-]+\.[\w-]{22}", re.ASCII)

_CALLBACK_TOKEN_BYTES = re.compile(CALLBACK_TOKEN.pattern.encode())


class KnownSecrets:
    """The secrets of one provider, in the forms in which it may repeat them.

    In plain, percent-encoded, escaped for JSON and HTML, in hexadecimal, and in base64, also within
    longer texts such as basic credentials.
    """

    def __init__(
        self,
        secrets: Secrets | None,
        credentials: Iterable[tuple[str, str]],
        tokens: Iterable[str] = (),
        found_later: Iterable[str] = (),
    ) -> None:
        """Know the secrets behind references, as they resolve whenever they are asked for.

        Args:
            credentials: user names, or empty texts, and references.
            tokens: secrets without a reference, which change.
            found_later: references, which may become more.
        """
        self._secrets = secrets
        self._credentials = list(credentials)
        self._tokens = tokens
        self._found_later = found_later
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}
        self._forms: tuple[str, ...] = ()

    def forms(self) -> tuple[str, ...]:
        """Every form of every secret, the longest first."""
        in_use = dict.fromkeys(self._in_use())
        if not in_use.keys() <= self._known.keys():
            for pair in in_use:
                self._known.pop(pair, None)
                self._known[pair] = tuple(_forms(*pair))
            while len(self._known) > len(in_use) + _KEPT_FOR_LATER:
                del self._known[next(iter(self._known))]
            found = {form for forms in self._known.values() for form in forms}
            self._forms = tuple(sorted(found, key=len, reverse=True))
        return self._forms

    def remove(self, value: Any) -> Any:
        """A JSON value without the secrets, whatever their place; the same one if there are none.

        Secrets with fewer than `SHORTEST_IN_DATA` characters stay.
        """
        forms = [form for form in self.forms() if len(form) >= SHORTEST_IN_DATA]
        whole = "\0".join(_texts(value))
        found = [form for form in forms if form in whole]
        if CALLBACK_TOKEN_PREFIX in whole:
            found += set(CALLBACK_TOKEN.findall(whole))
        return _replaced(value, found) if found else value

    def remove_bytes(self, body: bytes) -> bytes:
        """As `remove`, for a body that is no text."""
        for form in self.forms():
            if len(form) >= SHORTEST_IN_DATA:
                body = body.replace(form.encode(), REMOVED.encode())
        return _CALLBACK_TOKEN_BYTES.sub(REMOVED.encode(), body)

    def _in_use(self) -> Iterator[tuple[str, str]]:
        for token in self._tokens:
            yield "", token
        if self._secrets is None:
            return
        for username, ref in (*self._credentials, *(("", ref) for ref in self._found_later)):
            try:
                yield self._secrets.text(username) if username else "", self._secrets.resolve(ref)
            except SecretError:
                # It was not sent either.
                continue


def _forms(username: str, secret: str) -> Iterator[str]:
    plain = secret.strip()
    yield plain
    bare = plain.removeprefix(WEBHOOK_PREFIX)
    texts = {plain, bare} if bare else {plain}
    if username:
        texts.add(f"{username}:{secret}")
    for text in texts:
        yield from _encoded(text)


def _encoded(text: str) -> Iterator[str]:
    for percent in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield percent
        yield _LOWER_ESCAPE.sub(lambda found: found[0].lower(), percent)
    for escaped in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield escaped
        yield escaped.replace("/", "\\/")
    yield text
    yield html.escape(text)
    raw = text.encode()
    if len(raw) >= SHORTEST_IN_DATA:
        yield raw.hex()
        yield raw.hex().upper()
    for before in range(3):
        yield from _in_base64(raw, before)
    yield base64.b64encode(raw).decode()


_LOWER_ESCAPE = re.compile("%[0-9A-F]{2}")


def _in_base64(raw: bytes, before: int) -> Iterator[str]:
    """The characters that depend on nothing else, with so many bytes before it, modulo 3."""
    whole = base64.b64encode(bytes(before) + raw)
    certain = whole[-(-before * 4 // 3) : (before + len(raw)) * 4 // 3].decode()
    if len(certain) >= SHORTEST_IN_DATA:
        yield certain
        yield certain.replace("+", "-").replace("/", "_")


def _texts(value: Any) -> Iterator[str]:
    """All texts of a JSON value, names and long numbers included."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif type(one) is int and abs(one) >= _LONG_NUMBER:
            yield str(one)


_LONG_NUMBER = 10 ** (SHORTEST_IN_DATA - 1)


def _replaced(value: Any, forms: list[str]) -> Any:
    match value:
        case str():
            for form in forms:
                value = value.replace(form, REMOVED)
        case dict():
            return {_replaced(key, forms): _replaced(one, forms) for key, one in value.items()}
        case list():
            return [_replaced(one, forms) for one in value]
        case int() if any(form in str(value) for form in forms):
            return REMOVED
    return value
