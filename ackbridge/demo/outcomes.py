"""One call of each kind of end, all at the same time, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ackbridge.errors import AckbridgeError
from ackbridge.terminal import output

from .facts import facts_of
from .records import Archive, DemoRecords
from .scenario_run import DemoCall
from .scenarios import DemoScenario


@dataclass(frozen=True)
class Ending:
    """What became of one of them.

    Attributes:
        troubles: how that is not what it should be, a line each; none when it is.
    """

    kind: DemoScenario
    scene: DemoCall
    records: DemoRecords
    troubles: Sequence[str]

    @property
    def call_id(self) -> str:
        """The call."""
        return self.scene.request.call_id


async def play_all(archive: Archive, kinds: Sequence[DemoScenario], run: str) -> list[Ending]:
    """Make one call of each kind, showing how many have ended."""
    with output.call_progress() as bars:
        bar = bars.add_task("one call of each kind of end", total=len(kinds))

        async def one(kind: DemoScenario) -> Ending:
            ending = await play(archive, kind, run)
            bars.advance(bar)
            return ending

        return await asyncio.gather(*map(one, kinds))


async def play(archive: Archive, kind: DemoScenario, run: str) -> Ending:
    """Make the call of one kind, and read its records when it is over."""
    scene = DemoCall(archive, kind.request(run))
    troubles = []
    try:
        await kind.script(scene)
    except (AckbridgeError, TimeoutError) as error:
        troubles.append(str(error) or type(error).__name__)
    records = await archive.of(scene.request.call_id)
    troubles += kind.expected.differences(facts_of(scene, records))
    return Ending(kind, scene, records, troubles)
