"""The language of the code: one word, one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("ackbridge", "workflows", "activities")


def test_public_class_names_are_unique() -> None:
    """No two public classes of the product share a name."""
    modules = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((CHECKOUT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    modules[node.name].append(str(path.relative_to(CHECKOUT)))
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}
