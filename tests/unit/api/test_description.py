"""The OpenAPI document and the page of problems say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ackbridge.api.calls import CallBody
from ackbridge.api.problems import TYPES
from ackbridge.contracts.calls import CallRequest

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_document_matches_the_code(document: dict[str, Any]) -> None:
    """`make reference` renews it."""
    committed = json.loads((DOCS / "reference" / "openapi.json").read_text())
    assert committed == document, "docs/reference/openapi.json has fallen behind: make reference"


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    """Generators refuse a document with a dangling one."""
    assert document["openapi"].startswith("3.1")
    named = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document))
    assert set(named) <= set(document["components"]["schemas"])


def test_every_problem_is_on_the_page() -> None:
    """One heading for each type, with its status, and no others."""
    page = (DOCS / "problems.md").read_text()
    described = re.findall(r"^## ([a-z-]+)\n\n(\d{3})", page, re.MULTILINE)
    assert described == [(one.name, str(one.status)) for one in TYPES]


def test_a_call_has_the_fields_of_a_request() -> None:
    """All but the key, which is a header, with the same rules."""
    fields = {name: repr(field) for name, field in CallRequest.model_fields.items()}
    key = fields.pop("key")
    assert key
    assert {name: repr(field) for name, field in CallBody.model_fields.items()} == fields
