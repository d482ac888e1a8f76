"""Bodies that are stored in the ledger and passed by reference."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from .wire import StrictModel

STORED: Final = "$stored"
"""The one key of a JSON object that refers to a stored body."""


class BodyRef(StrictModel):
    """Refers to a stored body.

    Attributes:
        bytes: the size of the body.
        sha256: its digest, in hexadecimal.
    """

    id: str
    bytes: int
    content_type: str
    sha256: str

    def as_data(self) -> dict[str, Any]:
        """The JSON value that replaces the body."""
        return {STORED: self.model_dump(mode="json")}

    @classmethod
    def of_data(cls, data: object) -> BodyRef | None:
        """The reference that a JSON value is; None if it is a value of its own."""
        if not isinstance(data, dict) or data.keys() != {STORED}:
            return None
        try:
            return cls.model_validate(data[STORED])
        except ValidationError:
            return None
