"""`docs/architecture.md` is true: one call runs through the modules that the page names."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from temporalio import activity, workflow

from ackbridge.contracts import names
from ackbridge.contracts.calls import OutcomeStatus
from ackbridge.local.dev_server import EmbeddedEngine
from tests.support.stage import CHECKOUT, set_up

PAGE = CHECKOUT / "docs" / "architecture.md"
PRODUCT = ("ackbridge/", "workflows/", "activities/", "worker.py")
BESIDE_THE_CALL = (
    "ackbridge/sandbox/",
    "ackbridge/local/",
    "ackbridge/ledger/stats.py",
    "ackbridge/ledger/controls.py",
    "ackbridge/client/control",
    "ackbridge/gateway/sweeper.py",
    "ackbridge/stats/reporter.py",
)
"""The simulated provider, what starts the engine, what the provider's control uses, and what runs
every few seconds."""

MOST_MODULES = 60
MOST_MODULES_OF_THE_PROTOCOL = 11
MOST_FRAMES = 6


@dataclass
class Walk:
    """The functions of the product that run while `is_recording`.

    Attributes:
        functions: qualified names by file, relative to the checkout.
        frames_to_record: the workflow's functions on the stack when the response is recorded.
    """

    is_recording: bool = False
    functions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    frames_to_record: tuple[str, ...] = ()

    def profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        """A profile function, as of `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or not self.is_recording or code.co_name == "<module>":
            return
        path = _relative(code.co_filename)
        if path is None or not _is_for_the_call():
            return
        self.functions[path].add(code.co_qualname)
        if path == "workflows/hosting/temporal_host.py" and code.co_name == "perform":
            step = frame.f_locals.get("step")
            if step is not None and step.name == "record":
                self.frames_to_record = tuple(_stack(frame))


def _is_for_the_call() -> bool:
    """Whether this is not the control of the provider, whose loop runs beside all calls."""
    if activity.in_activity():
        return activity.info().workflow_type == names.INTEGRATION_CALL
    if workflow.in_workflow():
        return workflow.info().workflow_type == names.INTEGRATION_CALL
    return True


def _relative(filename: str) -> str | None:
    path = filename.removeprefix(f"{CHECKOUT}/")
    is_counted = path.startswith(PRODUCT) and not path.startswith(BESIDE_THE_CALL)
    return path if is_counted else None


def _stack(frame: FrameType | None) -> Iterator[str]:
    """The workflow's functions from the innermost outwards, without that of the step itself."""
    frame = frame.f_back if frame else None
    while frame is not None:
        path = _relative(frame.f_code.co_filename)
        if path is not None and path.startswith("workflows/"):
            yield frame.f_code.co_qualname
        frame = frame.f_back


@contextlib.contextmanager
def recorded_walk() -> Iterator[Walk]:
    """Profile this thread and all that start inside."""
    walk = Walk()
    threading.setprofile(walk.profile)
    sys.setprofile(walk.profile)
    try:
        yield walk
    finally:
        walk.is_recording = False
        sys.setprofile(None)
        threading.setprofile(None)


async def test_the_page_names_the_modules_of_one_call(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """A successful call runs through the modules of the page, not more, and not many."""
    with recorded_walk() as walk:
        async with contextlib.AsyncExitStack() as running:
            stage = await running.enter_async_context(set_up(engine, tmp_path))
            for _ in range(2):
                warm_up = await stage.calls.start(stage.request("create_order"))
                await warm_up.outcome()
            walk.is_recording = True
            call = await stage.calls.start(stage.request("create_order"))
            outcome = await call.outcome()
            walk.is_recording = False
    assert outcome.status is OutcomeStatus.COMPLETED
    passed = set(walk.functions)
    section = PAGE.read_text().partition("## One call")[2].partition("\n## ")[0]
    named = set(re.findall(r"`((?:ackbridge|workflows|activities)/[\w/]+\.py)`", section))
    assert named == passed
    assert len(passed) <= MOST_MODULES
    protocol = {path for path in passed if path.startswith("workflows/call/")}
    assert len(protocol) <= MOST_MODULES_OF_THE_PROTOCOL
    # The call's task is started by `IntegrationCall.run`, which is not on its stack.
    assert 0 < len(walk.frames_to_record) + 1 <= MOST_FRAMES
    functions = {name for names in walk.functions.values() for name in names}
    for mentioned in re.findall(r"`(\w+(?:\.\w+)?)\(\)`", section):
        assert any(f".{name}".endswith(f".{mentioned}") for name in functions), mentioned
