"""What a scenario is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ackbridge.conformance.cases import Case
from ackbridge.conformance.scenario_run import ScenarioRun

Play = Callable[[ScenarioRun], Awaitable[None]]


def _always(_case: Case) -> bool:
    return True


def _nothing(_case: Case) -> tuple[str, ...]:
    return ()


def _no_reason(_case: Case) -> str | None:
    return None


@dataclass(frozen=True)
class Scenario:
    """One thing that a provider, a caller or an operator may do.

    Attributes:
        name: short, as in `--only`.
        meaning: one line, for people.
        play: does it, and says what was not as expected; the invariants are checked besides.
        applies: whether it can happen to an operation at all.
        needs: what the provider has to say for it; what cannot be simulated skips it.
        unless: why it cannot be told whether an operation passes it; None if it can.
    """

    name: str
    meaning: str
    play: Play
    applies: Callable[[Case], bool] = _always
    needs: Callable[[Case], tuple[str, ...]] = _nothing
    unless: Callable[[Case], str | None] = _no_reason

    def obstacle(self, case: Case) -> str | None:
        """Why it is skipped; None if it is played."""
        return case.obstacle(*self.needs(case)) or self.unless(case)


def answer(case: Case) -> tuple[str, ...]:
    """What it needs to be answered."""
    match case.mode:
        case "sync":
            return ("sync.completed",)
        case "poll":
            return ("receipt", "status.processing", "status.completed")
        case _:
            return ("receipt", "callback.completed")


def failure(case: Case) -> tuple[str, ...]:
    """What it needs to fail for good."""
    return _failing(case, "failed")


def failure_and_answer(case: Case) -> tuple[str, ...]:
    """What it needs to fail once."""
    return (*_failing(case, "failed_again"), *answer(case))


def silence(case: Case) -> tuple[str, ...]:
    """What it needs to take a request, and say nothing more."""
    asked = ("status.processing",) if case.operation.response.status is not None else ()
    return ("receipt", *asked) if case.mode != "sync" else ()


def _failing(case: Case, how: str) -> tuple[str, ...]:
    said = {"sync": "sync", "poll": "status", "callback": "callback"}[case.mode]
    receipt = () if case.mode == "sync" else ("receipt",)
    return (*receipt, f"{said}.{how}")


def has_callbacks(case: Case) -> bool:
    """Whether the provider calls back."""
    return case.mode == "callback"


def is_asynchronous(case: Case) -> bool:
    """Whether the response comes after the receipt."""
    return case.mode != "sync"


def repeats_are_known(case: Case) -> str | None:
    """Whether the provider can tell a repeated request from a new one."""
    if case.operation.request.method == "GET" or case.names_its_cycle:
        return None
    return (
        "nothing in the request tells the provider that it is a repeated one"
        f" (operations.{case.name}.request.idempotency_header): it may do the work twice"
    )
