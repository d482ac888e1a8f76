"""What callers and operators do in the scenes."""

from __future__ import annotations

from .scenario_run import DemoCall
from .short_deadlines import DEADLINE

CALLER = "the customer"
OPERATOR = "Ada, on call"
COLLEAGUE = "Grace, on call"


async def await_it(scene: DemoCall) -> None:
    """Call, and wait for the outcome."""
    await scene.start()
    await scene.end()


async def repeat_it(scene: DemoCall) -> None:
    """The same call again, as after a crash of the caller."""
    await await_it(scene)
    first = scene.outcome
    await await_it(scene)
    scene.is_repeated = first is not None and scene.outcome == first


async def reuse_the_key(scene: DemoCall) -> None:
    """The same key for something else, which is a mistake in the caller."""
    await await_it(scene)
    other = scene.request.model_copy(update={"payload": {"amount": 999, "currency": "EUR"}})
    await scene.expect_refusal(other)


async def await_the_rest(scene: DemoCall) -> None:
    """The outcome first, and then what is owed."""
    await scene.start()
    await scene.end(settled=False)
    await scene.look_for_debts()
    await scene.end()


async def see_it_extended(scene: DemoCall) -> None:
    """The answer takes longer than it may, and the provider has said so."""
    await scene.start()
    await scene.until_awaiting(longer_than=DEADLINE)
    await scene.end()


async def see_it_parked(scene: DemoCall) -> None:
    """Nobody does anything; the call is parked in between."""
    await scene.start()
    await scene.until_parked()
    await scene.end()


async def await_both_answers(scene: DemoCall) -> None:
    """A late answer ends the call, and the answer to its other cycle is later still."""
    await see_it_parked(scene)
    await scene.until_answered(2)


async def take_it_up_again(scene: DemoCall) -> None:
    """An operator has a parked call sent once more."""
    await scene.start()
    await scene.until_parked()
    await scene.call.reprocess(by=COLLEAGUE)
    await scene.end()


async def look_and_force_it(scene: DemoCall) -> None:
    """An operator looks at the provider's own console, and ends a parked call by their word."""
    await scene.start()
    await scene.until_parked()
    work = (await scene.archive.works(scene.request.call_id))[-1]
    await scene.call.force_ack(
        by=OPERATOR,
        reason=f"their console says: {work['id']} is {work['status']}",
        response={"id": work["id"], "status": work["status"]},
    )
    await scene.end()


async def change_ones_mind(scene: DemoCall) -> None:
    """The caller cancels while the answer is awaited."""
    await scene.start()
    await scene.until_awaiting()
    await scene.call.cancel(by=CALLER, reason="changed their mind")
    await scene.end()
