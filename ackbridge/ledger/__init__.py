"""The ledger: responses, the duplicate index, correlations and the inbox, in SQL."""

from .batches import Batches
from .ledger import Ledger
from .migrating import migrate
from .notices import Notices
from .reporting import Reporter, reporting
from .rows import (
    CallRow,
    Claim,
    ClaimKind,
    HeldEntry,
    InboxEntry,
    InboxState,
    LogKind,
    NoticeRow,
    NoticeState,
    Owed,
    ParkedCall,
    ParkedCount,
    ResponseRow,
    StoredEntry,
    Unsettled,
)

__all__ = [
    "Batches",
    "CallRow",
    "Claim",
    "ClaimKind",
    "HeldEntry",
    "InboxEntry",
    "InboxState",
    "Ledger",
    "LogKind",
    "NoticeRow",
    "NoticeState",
    "Notices",
    "Owed",
    "ParkedCall",
    "ParkedCount",
    "Reporter",
    "ResponseRow",
    "StoredEntry",
    "Unsettled",
    "migrate",
    "reporting",
]
