"""poll: ask the provider until it has an answer."""

from __future__ import annotations

import random
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ackbridge.contracts import names
from ackbridge.contracts.messages import ProviderMessage
from ackbridge.contracts.steps import Asked, PollStep, StepFailure
from ackbridge.stats.counters import Count
from activities.support.counters import note
from activities.support.dependencies import Dependencies
from activities.support.retry import cause_of, failure
from activities.support.shutdown import worker_stops
from activities.support.status_reply import ask

LONGEST_WAIT = timedelta(minutes=1)
"""From here on a pause is the engine's: until then a retry costs more than waiting."""

BEAT = timedelta(seconds=5)
"""Between two heartbeats of a pause: by them a worker learns that nobody waits any more."""


class Poll:
    """Frequent questions are one attempt, infrequent ones an attempt each."""

    def __init__(self, provisions: Dependencies) -> None:
        self._with = provisions

    @activity.defn(name=names.POLL)
    async def poll(self, step: PollStep) -> Asked:
        """Ask until there is a message that is news; the deadline is the workflow's.

        Raises:
            ApplicationError: NotYet, to be tried again after the pause; never a final one.
        """
        while True:
            message, said, pause = await self._ask(step)
            if message is not None:
                return Asked(message=message)
            await _wait(said, pause)

    async def _ask(self, step: PollStep) -> tuple[ProviderMessage | None, str, timedelta]:
        """A message that is news; or why there is none, and how long to wait."""
        try:
            word = await ask(self._with, step)
        except Exception as error:
            cause = cause_of(error, StepFailure.NOT_YET)
            if cause is None:
                raise
            theirs = cause.kind is StepFailure.NOT_YET
            note(self._with, step.request, Count.STATUS_UNANSWERED if theirs else Count.OWN_ERRORS)
            return None, cause.reason, max(step.every, cause.retry_after or step.every)
        if word is None:
            return None, "response.status: the operation does not say how to ask", step.every
        note(self._with, step.request, Count.STATUS_ANSWERED)
        if word.message is None:
            return None, word.said, step.every
        if word.message.event_key in step.answered:
            return None, "the provider has not more to say than before", step.every
        return word.message, word.said, step.every


async def _wait(said: str, pause: timedelta) -> None:
    """Wait here for a short pause; let the engine, or another worker, go on after a long one."""
    share = random.random()  # noqa: S311 -- it spreads callers, and keeps no secret
    left = pause * (1 + share / 10)
    if pause >= LONGEST_WAIT:
        raise _not_yet(said, left)
    while left > timedelta(0):
        activity.heartbeat(said)
        if await worker_stops(min(left, BEAT)):
            raise _not_yet(said, left)
        left -= BEAT


def _not_yet(said: str, pause: timedelta) -> ApplicationError:
    return failure(StepFailure.NOT_YET, said, final=False, delay=pause)
