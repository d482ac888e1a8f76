"""Deterministic orchestration. `WORKFLOWS` is what a worker registers."""

from .integration_call import IntegrationCall
from .provider_control import ProviderControl

WORKFLOWS = [IntegrationCall, ProviderControl]

__all__ = ["WORKFLOWS", "IntegrationCall", "ProviderControl"]
