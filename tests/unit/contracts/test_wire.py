"""Reading what callers and files write."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from ackbridge.contracts.wire import Duration


@pytest.mark.parametrize("text", ["9999999999999d", "9" * 400 + "s", "1e400", "P" + "9" * 40 + "D"])
def test_durations_that_are_too_long_are_refused(text: str) -> None:
    """Like every other invalid value, not with an error of arithmetic."""
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)
