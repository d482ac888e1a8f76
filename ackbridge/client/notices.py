"""Sending notices again, by an operator's wish."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from ackbridge.contracts import names
from ackbridge.contracts.deliveries import DEFAULT_WITHIN, Delivery
from ackbridge.errors import EngineUnavailableError
from ackbridge.ledger.rows import NoticeRow

RPC_TIMEOUT = timedelta(seconds=10)


async def replay(client: Client, notice: NoticeRow, within: timedelta = DEFAULT_WITHIN) -> bool:
    """Deliver a notice again, whatever has become of it: under the same id, signed anew.

    Args:
        within: how long it is tried.

    Returns:
        Whether it was started; false when it is being delivered already.

    Raises:
        EngineUnavailableError: the engine does not answer; replaying again is safe.
    """
    try:
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
    except RPCError as error:
        raise EngineUnavailableError(f"the engine did not answer: {error.message}") from None
    return True
