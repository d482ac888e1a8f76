"""Deterministic orchestration. `WORKFLOWS` is what a worker registers."""

from .integration_call import IntegrationCall

WORKFLOWS = [IntegrationCall]

__all__ = ["WORKFLOWS", "IntegrationCall"]
