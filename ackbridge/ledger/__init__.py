"""The ledger: responses, the duplicate index, correlations and the inbox, in SQL."""

from .ledger import Ledger
from .migrating import migrate
from .reporting import Reporter, reporting
from .rows import (
    CallRow,
    Claim,
    ClaimKind,
    HeldEntry,
    InboxEntry,
    InboxState,
    LogKind,
    Owed,
    ResponseRow,
    StoredEntry,
    Unsettled,
)

__all__ = [
    "CallRow",
    "Claim",
    "ClaimKind",
    "HeldEntry",
    "InboxEntry",
    "InboxState",
    "Ledger",
    "LogKind",
    "Owed",
    "Reporter",
    "ResponseRow",
    "StoredEntry",
    "Unsettled",
    "migrate",
    "reporting",
]
