"""A version before this one, made up for tests: `python -m tests.support.version_before BUILD_ID`.

Its revision is 0, and it has one command more: it sets the search attribute of the stage when a
call begins to await its response. This version goes on with its calls as every change of commands
has to: by a branch on `Plan.revision`.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

import worker
from ackbridge.contracts.calls import Stage
from ackbridge.contracts.plan import REVISION
from ackbridge.workarounds.temporal_sdk import exit_process
from activities import prepare as planning
from workflows.call.cycles import Cycle
from workflows.call.sending import PollLoop, Sending

BEFORE, NOW = "before", "now"
"""The build ids."""

REVISION_BEFORE = 0


def knows_version_before() -> Any:
    """Patch this version: calls that were planned by the version before keep their commands."""
    start_polling = Sending.start_polling

    def with_stage(self: Sending, cycle: Cycle) -> PollLoop | None:
        if self._plan.revision < REVISION:
            self._host.index(Stage.AWAITING_RESPONSE, None, self._state.deadline)
        return start_polling(self, cycle)

    return patch.object(Sending, "start_polling", with_stage)


def is_version_before() -> Any:
    """Patch this version: calls are planned as by the version before."""
    return patch.object(planning, "REVISION", REVISION_BEFORE)


if __name__ == "__main__":
    knows_version_before().start()
    if sys.argv.pop(1) == BEFORE:
        is_version_before().start()
    exit_process(worker.main())
