"""The parts of a local stack: how each is started, and how one knows that it is ready."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx

from ackbridge.errors import UnavailableError

from .application import app_folder
from .managed_process import ManagedProcess
from .ports import HOST

STRIPE_EVENTS = (
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.canceled",
)
WORKER_READY = "worker ready"
"""The line that the worker prints."""

_STRIPE_PROGRAM = Path(__file__).with_name("stripe_process.py")
_LOOK_EVERY = 0.05
"""Seconds between two looks at a part that starts."""
_ANSWER_WITHIN = 5.0
"""Seconds."""


class ProcessDiedError(UnavailableError):
    """A part of the stack ended by itself; the text has the end of its log.

    Attributes:
        part: which.
        exit_status: what it ended with, negative for a signal.
    """

    def __init__(self, part: str, exit_status: int | None, log: Path, tail: str) -> None:
        self.part = part
        self.exit_status = exit_status
        super().__init__(
            f"{part} ended with {exit_status}; the end of its log, {log}:\n{tail or '(empty)'}"
        )


@dataclass(frozen=True)
class ProcessPlan:
    """How a part is run.

    Attributes:
        command: an absolute path, and its arguments.
        is_ready: asked, with what it has written so far, until it says so.
        once_ready: what is done then, at every start.
    """

    command: tuple[str, ...] = field(repr=False)
    is_ready: Callable[[str], bool]
    once_ready: Callable[[], None] = lambda: None


class StackProcess:
    """One process of the stack."""

    def __init__(
        self,
        name: str,
        plan: ProcessPlan,
        *,
        environ: Mapping[str, str],
        log: Path,
        folder: Path,
        starts_within: timedelta,
    ) -> None:
        self.name = name
        self.child = ManagedProcess(plan.command, environ=environ, log=log, folder=folder)
        self._plan = plan
        self._starts_within = starts_within

    def start(self) -> None:
        """Start it, and return when it is ready.

        Raises:
            ProcessDiedError: it ended instead.
            UnavailableError: it was not ready in time.
        """
        if self.child.is_running:
            return
        until = time.monotonic() + self._starts_within.total_seconds()
        self.child.start()
        while not self._plan.is_ready(self.child.output()):
            if not self.child.is_running:
                raise ProcessDiedError(
                    self.name, self.child.exit_status, self.child.log, self.child.tail()
                )
            if time.monotonic() > until:
                raise UnavailableError(
                    f"{self.name} was not ready within {self._starts_within};"
                    f" see {self.child.log}:\n{self.child.tail()}"
                )
            time.sleep(_LOOK_EVERY)
        self._plan.once_ready()

    def stop(self, patience: timedelta) -> None:
        """Stop it: SIGTERM, then SIGKILL when it takes longer than `patience`."""
        self.child.stop(patience)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal, and wait for the end if it is SIGKILL; `start` starts it again."""
        self.child.send(number)
        if number is signal.SIGKILL:
            self.child.wait()


def worker_plan() -> ProcessPlan:
    """The worker of all queues."""
    return ProcessPlan(
        command=(sys.executable, str(app_folder() / "worker.py")),
        is_ready=lambda output: WORKER_READY in output.splitlines(),
    )


def gateway_plan(port: int) -> ProcessPlan:
    """The gateway."""
    return ProcessPlan(
        command=(
            *(sys.executable, "-m", "ackbridge", "gateway"),
            *("--host", HOST, "--port", str(port)),
        ),
        is_ready=_answers(f"http://{HOST}:{port}/readyz"),
    )


def sandbox_plan(port: int, options: Sequence[str]) -> ProcessPlan:
    """The simulated provider.

    Args:
        options: its faults, such as `--rates '{"duplicate": 0.1}'`.
    """
    return ProcessPlan(
        command=(sys.executable, "-m", "ackbridge.sandbox", "--port", str(port), *options),
        is_ready=_answers(f"http://{HOST}:{port}/healthz"),
    )


def stripe_plan(port: int, webhook_url: str, webhook_secret: str) -> ProcessPlan:
    """localstripe, which keeps nothing and is told at every start where its events go."""

    def register_webhook() -> None:
        with httpx.Client(trust_env=False, timeout=_ANSWER_WITHIN) as client:
            client.post(
                f"http://{HOST}:{port}/_config/webhooks/ackbridge",
                json={"url": webhook_url, "secret": webhook_secret, "events": STRIPE_EVENTS},
            ).raise_for_status()

    return ProcessPlan(
        # By its path and without ours: it has nothing to do with the package it lies in.
        command=(sys.executable, "-P", str(_STRIPE_PROGRAM), "--port", str(port)),
        is_ready=_answers(f"http://{HOST}:{port}/js.stripe.com/v3/"),
        once_ready=register_webhook,
    )


def _answers(url: str) -> Callable[[str], bool]:
    def ask(_output: str) -> bool:
        try:
            return httpx.get(url, timeout=_ANSWER_WITHIN, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    return ask
