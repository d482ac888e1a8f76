"""The wire: models, names and search attributes that any Temporal SDK can use.

What a caller needs is exported here; everything else is imported from its module.
"""

from .batches import BatchProgress, BatchRequest, ParkedSelection
from .calls import CallOutcome, CallRequest, CallStatus, Notice, OutcomeStatus, Stage
from .signals import AwaitOutcome, Cancel, ForceAck, Reprocess

__all__ = [
    "AwaitOutcome",
    "BatchProgress",
    "BatchRequest",
    "CallOutcome",
    "CallRequest",
    "CallStatus",
    "Cancel",
    "ForceAck",
    "Notice",
    "OutcomeStatus",
    "ParkedSelection",
    "Reprocess",
    "Stage",
]
