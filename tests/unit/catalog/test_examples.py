"""Examples: the format, and loading them with every problem and its position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ackbridge.catalog.examples import Example
from ackbridge.catalog.json_schema import json_schema_of
from ackbridge.catalog.loading import load_examples, load_integration
from ackbridge.errors import IntegrationFileError, Problem
from tests.support.catalog_files import write

FILE = """\
provider: acme
base_url: https://acme.example
examples: examples/*.json
operations:
  order:
    request: {path: /orders}
    response: {mode: sync}
"""
RECEIPT: dict[str, Any] = {
    "source": "https://acme.example/docs",
    "operation": "order",
    "answer": {"status": 200, "headers": {"X-Id": "1"}, "body": {"total": 1.50}},
    "means": {"kind": "success"},
}


def load(folder: Path, *examples: object) -> list[Example]:
    """The examples of a file beside these."""
    (folder / "examples").mkdir(exist_ok=True)
    for number, one in enumerate(examples):
        text = one if isinstance(one, str) else json.dumps(one, indent=1)
        write(folder / "examples", text, f"{number}.json")
    file = write(folder, FILE)
    return [one.example for one in load_examples(file, load_integration(file, {}))]


def refused(folder: Path, *examples: object) -> list[Problem]:
    """The problems of these examples."""
    with pytest.raises(IntegrationFileError) as refusal:
        load(folder, *examples)
    return list(refusal.value.problems)


def test_an_example_is_what_its_file_says(tmp_path: Path) -> None:
    """Bodies are JSON, texts or bytes; headers are found in any case."""
    as_text = {**RECEIPT, "answer": {"status": 200, "text": '{"total": 1.50}'}}
    as_bytes = {**RECEIPT, "answer": {"status": 200, "base64": "AP8="}}
    empty = {**RECEIPT, "answer": {"status": 200}, "$schema": "../example.schema.json"}
    first, second, third, last = load(tmp_path, RECEIPT, as_text, as_bytes, empty)
    assert first.content.lower_headers == {"x-id": "1"}
    assert [one.content.raw for one in (first, second, third, last)] == [
        b'{"total":1.5}',
        b'{"total": 1.50}',
        b"\0\xff",
        b"",
    ]
    assert first.means[0].kind == "success"


def test_the_schema_accepts_what_the_loader_accepts(tmp_path: Path) -> None:
    """One meaning or a list."""
    delivery = {
        "source": "made up",
        "delivery": {"body": []},
        "means": [{"kind": "ignored"}, {"kind": "event", "event": "refund"}],
    }
    validator = Draft202012Validator(json_schema_of(Example))
    for one in (RECEIPT, delivery):
        validator.validate(one)
        load(tmp_path, one)
    assert not validator.is_valid({**RECEIPT, "means": []})


def test_problems_have_line_and_field(tmp_path: Path) -> None:
    """Of every example at once."""
    unknown = {**RECEIPT, "operation": "odrer"}
    missing = {"operation": "order", "answer": {"status": 700}, "means": {"kind": "sucess"}}
    found = {Path(p.file).stem + "/" + p.field: p for p in refused(tmp_path, unknown, missing)}
    assert "Did you mean 'order'?" in found["0/operation"].message
    assert found["0/operation"].line == 3
    assert (found["1/answer.status"].line, found["1/source"].message) == (4, "is missing")
    assert "1/means.kind" in found


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"delivery": {}}, "needs either answer or delivery"),
        ({"means": {"kind": "accepted"}}, "an answer to request cannot be accepted"),
        ({"request": {"path": "/orders"}}, "request needs call"),
        ({"answer": {"status": 200, "body": 1, "text": "1"}}, "more than one body"),
        ({"answer": {"status": 200, "base64": "%"}}, "is not base64"),
        ({"means": [{"kind": "success"}, {"kind": "success"}]}, "has one meaning"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    """With what would be right."""
    (found,) = refused(tmp_path, {**RECEIPT, **change})
    assert problem in found.message


def test_what_is_not_json_is_refused_with_its_place(tmp_path: Path) -> None:
    """YAML is not enough."""
    (found,) = refused(tmp_path, '{\n "source": made up\n}')
    assert (found.line, found.column) == (2, 12)
    assert found.message.startswith("not JSON")


def test_a_pattern_without_files_is_a_problem(tmp_path: Path) -> None:
    """It names the pattern, in the integration file."""
    (found,) = refused(tmp_path)
    assert (found.line, found.field) == (3, "examples")
    assert found.message == "no file matches examples/*.json"


def test_a_pattern_stays_below_the_files_folder(tmp_path: Path) -> None:
    """No absolute path."""
    with pytest.raises(IntegrationFileError):
        load_integration(write(tmp_path, FILE.replace("examples/*", "/etc/*")), {})
