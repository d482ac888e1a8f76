"""Deterministic orchestration. `WORKFLOWS` is what a worker registers."""

from .integration_call import IntegrationCall
from .provider_control import ProviderControl
from .reprocess_parked import ReprocessParked

WORKFLOWS = [IntegrationCall, ProviderControl, ReprocessParked]

__all__ = ["WORKFLOWS", "IntegrationCall", "ProviderControl", "ReprocessParked"]
