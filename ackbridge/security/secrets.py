"""Secret references, and what they stand for at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ackbridge.errors import SecretError

from .specs import is_secret_ref

_LARGEST = 64 * 1024


class Secrets:
    """Resolves `env:NAME` and `file:/path`.

    Nothing is kept: a file is read whenever its secret is needed, so that a rotated one counts
    from the next request on, without a restart. Neither texts nor errors of this class show values.
    """

    def __init__(self, environ: Mapping[str, str], root: Path) -> None:
        """Take the environment for `env:`, and the folder where relative `file:` paths start."""
        self._environ = environ
        self._root = root

    def resolve(self, ref: str) -> str:
        """The secret behind a reference; the line end of a file does not belong to it.

        Raises:
            SecretError: it is not there, cannot be read or is empty; names the reference only.
        """
        if not is_secret_ref(ref):
            # Not repeated: it may be a secret, pasted where a reference belongs.
            raise SecretError("not a secret reference: expected env:NAME or file:/path")
        kind, _, where = ref.partition(":")
        value = self._variable(ref, where) if kind == "env" else self._file(ref, where)
        if not value.strip():
            # An empty key would let anybody sign.
            raise SecretError(f"{ref}: is empty")
        return value

    def text(self, plain_or_ref: str) -> str:
        """A plain text as it is, or what it refers to.

        Raises:
            SecretError: as `resolve`.
        """
        return self.resolve(plain_or_ref) if is_secret_ref(plain_or_ref) else plain_or_ref

    def _variable(self, ref: str, name: str) -> str:
        value = self._environ.get(name)
        if value is None:
            raise SecretError(f"{ref}: is not set")
        return value

    def _file(self, ref: str, path: str) -> str:
        try:
            with (self._root / path).open("rb") as file:
                content = file.read(_LARGEST + 1)
        except OSError as error:
            raise SecretError(f"{ref}: cannot be read ({error.strerror})") from None
        if len(content) > _LARGEST:
            raise SecretError(f"{ref}: is longer than {_LARGEST} bytes")
        try:
            return content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SecretError(f"{ref}: is not UTF-8 text") from None
