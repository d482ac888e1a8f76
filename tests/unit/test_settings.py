"""Settings: retentions are read from the environment, and bad ones are refused by name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ackbridge.contracts.purge import KEEP_FOREVER
from ackbridge.errors import ConfigurationError
from ackbridge.settings import load_settings, unknown_settings


def test_retentions_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the process environment and from `.env`; the others keep their defaults."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "ACKBRIDGE_RETENTION_EVENTS=2000d\nACKBRIDGE_PUBLIC_URL=http://x\n"
    )
    monkeypatch.setenv("ACKBRIDGE_RETENTION_DEAD_NOTICES", "0")
    monkeypatch.setenv("ACKBRIDGE_PURGE_EVERY", "6h")

    settings = load_settings()

    assert settings.retention.events == timedelta(days=2000)
    assert settings.retention.dead_notices == KEEP_FOREVER
    assert settings.retention.calls == timedelta(days=90)
    assert settings.purge_every == timedelta(hours=6)
    assert settings.public_url == "http://x"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        (
            "CALLS",
            "12h",
            "ACKBRIDGE_RETENTION_CALLS: must be at least 1d, or 0 to keep records for ever",
        ),
        ("CALLS", "-3", "ACKBRIDGE_RETENTION_CALLS: '-3' is not a duration"),
        ("EVENTS", "60d", "events: must be kept at least as long as calls"),
        ("CALL", "90d", "ACKBRIDGE_RETENTION_CALL: Extra inputs are not permitted"),
    ],
)
def test_bad_retentions_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, complaint: str
) -> None:
    """The message names the setting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"ACKBRIDGE_RETENTION_{name}", value)
    with pytest.raises(ConfigurationError, match=complaint):
        load_settings()


def test_unknown_settings_are_named() -> None:
    """With the one that is meant, if any is similar; those of other programs are not ours."""
    environ = {
        "ACKBRIDGE_LEGDER_URL": "x",
        "ACKBRIDGE_ZZZ": "1",
        "OTHER": "",
        "ACKBRIDGE_FLAGS": "",
    }
    assert unknown_settings(environ) == [
        "ACKBRIDGE_LEGDER_URL is not a setting, and is ignored. Did you mean ACKBRIDGE_LEDGER_URL?",
        "ACKBRIDGE_ZZZ is not a setting, and is ignored.",
    ]
