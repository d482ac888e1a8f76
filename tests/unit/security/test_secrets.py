"""Secret references and what they resolve to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackbridge.errors import SecretError
from ackbridge.security.secrets import Secrets


def test_a_variable_is_looked_up_each_time(tmp_path: Path) -> None:
    """A changed variable counts at once."""
    environ = {"KEY": "one"}
    secrets = Secrets(environ, tmp_path)
    before = secrets.resolve("env:KEY")
    environ["KEY"] = "two"

    assert (before, secrets.resolve("env:KEY")) == ("one", "two")


def test_a_file_is_read_again_when_it_was_rotated(tmp_path: Path) -> None:
    """A rotated file counts at once, even when its size is the same."""
    (tmp_path / "key").write_text("one\n")
    secrets = Secrets({}, tmp_path)
    before = secrets.resolve("file:key")
    (tmp_path / "key").write_text("two\r\n")

    assert (before, secrets.resolve(f"file:{tmp_path}/key")) == ("one", "two")


def test_a_plain_text_stands_for_itself(tmp_path: Path) -> None:
    """A name that is no reference is returned as it is, and a reference is resolved."""
    secrets = Secrets({"NAME": "shop"}, tmp_path)

    assert (secrets.text("id-1"), secrets.text("env:NAME")) == ("id-1", "shop")


@pytest.mark.parametrize(
    ("ref", "said"),
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
def test_what_does_not_resolve_is_named_by_its_reference(
    tmp_path: Path, ref: str, said: str
) -> None:
    """Errors name the reference, and a pasted secret not even that."""
    (tmp_path / "blank").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long").write_bytes(b"x" * 70_000)

    with pytest.raises(SecretError) as refused:
        Secrets({"EMPTY": ""}, tmp_path).resolve(ref)

    assert said == str(refused.value)


def test_secrets_do_not_show_themselves(tmp_path: Path) -> None:
    """The resolver's own text has no values."""
    assert "hunter2" not in repr(Secrets({"KEY": "hunter2"}, tmp_path))
