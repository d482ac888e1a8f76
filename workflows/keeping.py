"""Keeping in the ledger where a call stands; the ledger answers for it when no worker does."""

from __future__ import annotations

from temporalio import workflow

from . import steps
from .hearing import Hearing
from .host import Host
from .progress import Progress

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import CallRequest, ConcludeStep, OutcomeStatus, Stage


async def conclude(
    host: Host,
    request: CallRequest,
    progress: Progress,
    hearing: Hearing,
    stage: Stage,
    reason: str | None,
    *,
    is_revised: bool,
) -> None:
    """Keep the stage, the outcome if there is one, and what was suppressed or is held.

    Args:
        is_revised: as of the plan; calls of older workers do all of it alike.
    """
    outcome = progress.outcome
    gives_up = outcome is not None and outcome.status is not OutcomeStatus.COMPLETED
    step = steps.CONCLUDE_FOR_GOOD if gives_up and is_revised else steps.CONCLUDE
    await host.perform(
        request.provider,
        step,
        ConcludeStep(
            request=request,
            stage=stage,
            reason=reason,
            outcome=outcome,
            suppressed=hearing.take_suppressed(),
            held=hearing.take_held(),
        ),
    )
