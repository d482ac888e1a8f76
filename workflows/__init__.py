"""Deterministic orchestration. `WORKFLOWS` is what a worker registers."""

from workflows.bulk.workflow import BulkCalls
from workflows.call.workflow import IntegrationCall
from workflows.provider_control.workflow import ProviderControl
from workflows.reprocess_parked.workflow import ReprocessParked

from .catch_up import CatchUp
from .deliver_notice import DeliverNotice
from .forward_events import ForwardEvents
from .purge_ledger import PurgeLedger
from .settle_call import SettleCall

WORKFLOWS = [
    IntegrationCall,
    BulkCalls,
    DeliverNotice,
    ProviderControl,
    ReprocessParked,
    PurgeLedger,
    SettleCall,
    ForwardEvents,
    CatchUp,
]

__all__ = [
    "WORKFLOWS",
    "BulkCalls",
    "CatchUp",
    "DeliverNotice",
    "ForwardEvents",
    "IntegrationCall",
    "ProviderControl",
    "PurgeLedger",
    "ReprocessParked",
    "SettleCall",
]
