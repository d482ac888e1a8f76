"""The files of `call-many`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackbridge.cli.call_files import RequestFile, ResultFile
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.wire import InvalidInputError

COMMON = {"provider": "sandbox", "operation": "create_order"}


def requests(folder: Path, *lines: str) -> RequestFile:
    """A file with these lines."""
    path = folder / "calls.ndjson"
    path.write_text("".join(f"{line}\n" for line in lines))
    return RequestFile(path, COMMON)


def test_a_line_is_a_request(tmp_path: Path) -> None:
    """Blank lines are skipped; a line that stands there twice is one call."""
    file = requests(
        tmp_path, '{"key": "a", "payload": {"n": 1}, "language": "de"}', "", '{"key": "b"}', ""
    )
    first, second = file
    assert (first.call_id, first.payload, first.language) == (
        "sandbox.create_order.a",
        {"n": 1},
        "de",
    )
    assert (second.key, second.payload) == ("b", None)
    assert requests(tmp_path, '{"key": "a"}', '{"key": "a"}', '{"key": "b"}').check() == 2


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: not a JSON object"),
        ('{"payload": 1}', "line 2: CallRequest: key: "),
        ('{"key": "b", "colour": 1}', "line 2: CallRequest: colour: "),
        ('{"key": "b", "provider": "other"}', "line 2: provider: given on the command line"),
        ('{"key": "a", "payload": 2}', "line 2: line 1 has the same key and another payload"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, error: str) -> None:
    """All lines are checked before the first call is started."""
    with pytest.raises(InvalidInputError, match=error):
        requests(tmp_path, '{"key": "a", "payload": 1}', line).check()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Not as an internal error."""
    with pytest.raises(InvalidInputError, match=r"nothing\.ndjson: No such file"):
        RequestFile(tmp_path / "nothing.ndjson", COMMON).check()


def call(key: str, payload: int = 1, operation: str = "create_order") -> CallRequest:
    """A request with this key."""
    return CallRequest(provider="sandbox", operation=operation, key=key, payload={"n": payload})


def test_results_are_continued(tmp_path: Path) -> None:
    """What a killed run was writing is removed; the latest result of a key counts."""
    path = tmp_path / "results.ndjson"
    with ResultFile(path) as results:
        results.add(call("a"), "completed", {"response": {"id": "ä"}})
        results.add(call("b"), "pending", {})
        results.add(call("c"), "pending", {})
    with path.open("ab") as file:
        file.write(b'{"key": "d", "sta')
    with ResultFile(path) as results:
        assert [results.is_finished(call(key)) for key in "abcd"] == [True, False, False, False]
        results.add(call("b"), "failed", {})
    with ResultFile(path) as results:
        statuses = [results.status(call(key)) for key in "abc"]
        assert statuses == ["completed", "failed", "pending"]
    assert path.stat().st_mode & 0o077 == 0


def test_a_result_is_that_of_its_request(tmp_path: Path) -> None:
    """Not of another operation with the same key, nor of a payload that was changed since."""
    path = tmp_path / "results.ndjson"
    with ResultFile(path) as results:
        for key, status in (("a", "completed"), ("b", "refused"), ("c", "pending")):
            results.add(call(key), status, {})
    with ResultFile(path) as results:
        assert not results.is_finished(call("a", operation="refund"))
        assert not results.is_finished(call("b", payload=2))
        line = '{{"key": "{}", "payload": {{"n": {}}}}}'
        results.check(requests(tmp_path, line.format("a", 1), line.format("b", 2)))
        changed = requests(tmp_path, line.format("c", 2), line.format("a", 2))
        with pytest.raises(InvalidInputError, match=r"line 2: .* with another payload"):
            results.check(changed)


def test_two_runs_do_not_share_a_file(tmp_path: Path) -> None:
    """Nor is another file taken for results."""
    path = tmp_path / "results.ndjson"
    with ResultFile(path), pytest.raises(InvalidInputError, match="another call-many writes it"):
        ResultFile(path).__enter__()
    for text in ("no results\n", "no results"):
        path.write_text(text)
        with pytest.raises(InvalidInputError, match="line 1 is no result"):
            ResultFile(path).__enter__()
        assert path.read_text() == text
