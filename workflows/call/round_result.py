"""How a stretch of a conversation can end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.continuation import ParkedCause


class RoundEnd(Enum):
    """Why listening ended, other than by a failure."""

    ANSWER = auto()
    SILENCE = auto()
    CANCEL = auto()
    REPROCESS = auto()
    ASIDE = auto()
    """Something else has to be done before listening goes on."""


@dataclass(frozen=True)
class NoResponse:
    """A round that ended without an answer.

    Attributes:
        reason: why, for people.
        parked_reason: under which name operators find it when it is parked.
        again: whether another round may do better right now.
        notice: which of the operation's notices fits.
        may_come_late: the provider never said that it has failed; its answer may still come.
        is_kept_back: nothing may be sent now; the operation says what becomes of such a call.
    """

    reason: str
    parked_reason: str
    again: bool = False
    notice: str = "failed"
    may_come_late: bool = False
    is_kept_back: bool = False

    def memory(self) -> ParkedCause:
        """For the run that continues this one."""
        return ParkedCause(reason=self.reason, parked_reason=self.parked_reason, notice=self.notice)
