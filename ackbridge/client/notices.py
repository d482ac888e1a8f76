"""Deliver a notice again at an operator's request."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from ackbridge.contracts import names
from ackbridge.contracts.deliveries import DEFAULT_WITHIN, Delivery
from ackbridge.ledger.notices import NoticeRow
from ackbridge.temporal.connect import RPC_TIMEOUT, rpc_errors


async def replay_notice(
    client: Client, notice: NoticeRow, within: timedelta = DEFAULT_WITHIN
) -> bool:
    """Deliver a notice again, whatever its state: with the same id and a new signature.

    Args:
        within: how long delivery is retried.

    Returns:
        Whether a delivery was started; false when one is running already.

    Raises:
        EngineUnavailableError: the engine does not answer; calling again is safe.
    """
    try:
        with rpc_errors():
            await client.start_workflow(
                names.DELIVER_NOTICE,
                Delivery(subscriber=notice.subscriber, body=notice.body, within=within, again=True),
                id=names.notice_id(notice.event_id),
                task_queue=names.TASK_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"{notice.type} to {notice.subscriber}, again",
                rpc_timeout=RPC_TIMEOUT,
            )
    except WorkflowAlreadyStartedError:
        return False
    return True
