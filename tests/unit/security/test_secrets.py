"""Resolution of secret references."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackbridge.errors import SecretError
from ackbridge.security.secrets import Secrets


def test_a_variable_is_resolved_on_every_use(tmp_path: Path) -> None:
    """A changed variable takes effect at once."""
    environ = {"KEY": "one"}
    secrets = Secrets(environ, tmp_path)
    before = secrets.resolve("env:KEY")
    environ["KEY"] = "two"

    assert (before, secrets.resolve("env:KEY")) == ("one", "two")


def test_a_rotated_file_is_read_again(tmp_path: Path) -> None:
    """A rotated file takes effect at once, even if its size is the same."""
    (tmp_path / "key").write_text("one\n")
    secrets = Secrets({}, tmp_path)
    before = secrets.resolve("file:key")
    (tmp_path / "key").write_text("two\r\n")

    assert (before, secrets.resolve(f"file:{tmp_path}/key")) == ("one", "two")


def test_a_plain_text_is_returned_unchanged(tmp_path: Path) -> None:
    """A plain name is returned unchanged, and a reference is resolved."""
    secrets = Secrets({"NAME": "shop"}, tmp_path)

    assert (secrets.text("id-1"), secrets.text("env:NAME")) == ("id-1", "shop")


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("env:ABSENT", "env:ABSENT: is not set"),
        ("env:EMPTY", "env:EMPTY: is empty"),
        ("file:absent", "file:absent: cannot be read (No such file or directory)"),
        ("file:.", "file:.: cannot be read (Is a directory)"),
        ("file:blank", "file:blank: is empty"),
        ("file:binary", "file:binary: is not UTF-8 text"),
        ("file:long", "file:long: is longer than 65536 bytes"),
        ("hunter2", "not a secret reference: expected env:NAME or file:/path"),
    ],
)
def test_errors_name_the_reference(tmp_path: Path, ref: str, message: str) -> None:
    """Errors name the reference, and do not repeat a pasted secret."""
    (tmp_path / "blank").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long").write_bytes(b"x" * 70_000)

    with pytest.raises(SecretError) as refused:
        Secrets({"EMPTY": ""}, tmp_path).resolve(ref)

    assert message == str(refused.value)


def test_the_repr_contains_no_secrets(tmp_path: Path) -> None:
    """The repr of the resolver has no values."""
    assert "hunter2" not in repr(Secrets({"KEY": "hunter2"}, tmp_path))
