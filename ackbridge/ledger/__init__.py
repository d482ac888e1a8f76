"""The ledger: responses, the duplicate index, correlations and the inbox, in SQL."""

from .ledger import Ledger
from .migrating import migrate
from .rows import (
    CallRow,
    Claim,
    ClaimKind,
    InboxEntry,
    InboxState,
    LogKind,
    ResponseRow,
    StoredEntry,
)

__all__ = [
    "CallRow",
    "Claim",
    "ClaimKind",
    "InboxEntry",
    "InboxState",
    "Ledger",
    "LogKind",
    "ResponseRow",
    "StoredEntry",
    "migrate",
]
