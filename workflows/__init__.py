"""Deterministic orchestration. `WORKFLOWS` is what a worker registers."""

from .deliver_notice import DeliverNotice
from .integration_call import IntegrationCall

WORKFLOWS = [IntegrationCall, DeliverNotice]

__all__ = ["WORKFLOWS", "DeliverNotice", "IntegrationCall"]
