"""Deterministic orchestration. `WORKFLOWS` is what a worker registers."""

from .deliver_notice import DeliverNotice
from .integration_call import IntegrationCall
from .provider_control import ProviderControl
from .purge_ledger import PurgeLedger
from .reprocess_parked import ReprocessParked

WORKFLOWS = [IntegrationCall, DeliverNotice, ProviderControl, ReprocessParked, PurgeLedger]

__all__ = [
    "WORKFLOWS",
    "DeliverNotice",
    "IntegrationCall",
    "ProviderControl",
    "PurgeLedger",
    "ReprocessParked",
]
