"""The workflow `PurgeLedger`: what is over and old leaves the ledger, page by page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from workflows.hosting.temporal_host import is_worn

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.purge import (
        FOREVER,
        PurgePage,
        PurgeProgress,
        PurgeRequest,
        PurgeStep,
        Retention,
    )
    from ackbridge.contracts.wire import InvalidInputError, read

PAGE_TIMEOUT = timedelta(minutes=10)
"""Of one attempt; a page is over long before that."""
SILENT_FOR = timedelta(seconds=30)
"""After which a page's worker is thought to be dead; longer than any transaction may take."""
RETRIES = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))
"""For as long as it takes: what is deleted stays deleted."""


@workflow.defn(name=names.PURGE_LEDGER)
class PurgeLedger:
    """One clean-up. Arguments arrive raw and are validated inside, as those of calls."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid: str | None = None
        try:
            self._request, self._progress = _read_start(arguments)
        except InvalidInputError as error:
            self._invalid = str(error)

    @workflow.run
    async def run(self, *_arguments: Any) -> PurgeProgress:
        """Go through the ledger once.

        Returns:
            How much is gone.

        Raises:
            ApplicationError: of type InvalidRequest; it was started with something else.
            ActivityError: calls would be kept shorter than the engine keeps them.
        """
        if self._invalid is not None:
            raise ApplicationError(self._invalid, type=names.INVALID_REQUEST, non_retryable=True)
        while not self._progress.is_done:
            workflow.set_current_details(_tell(self._progress, self._request.retention))
            if is_worn():
                workflow.continue_as_new(args=[self._request, self._progress])
            self._take(await self._page())
        workflow.set_current_details(_tell(self._progress, self._request.retention))
        return self._progress

    async def _page(self) -> PurgePage:
        seen = self._progress
        step = PurgeStep(retention=self._request.retention, as_of=seen.as_of, place=seen.place)
        page: PurgePage = await workflow.execute_activity(
            names.PURGE_PAGE,
            step,
            result_type=PurgePage,
            start_to_close_timeout=PAGE_TIMEOUT,
            heartbeat_timeout=SILENT_FOR,
            retry_policy=RETRIES,
            summary=f"clean up {seen.place.kind if seen.place else 'from the beginning'}",
        )
        return page

    def _take(self, page: PurgePage) -> None:
        gone = dict(self._progress.gone)
        for kind, number in page.gone.items():
            gone[kind] = gone.get(kind, 0) + number
        known = {"as_of": page.as_of, "place": page.place, "gone": gone}
        self._progress = self._progress.model_copy(update={**known, "is_done": page.place is None})

    @workflow.query(name=names.PROGRESS)
    def progress(self) -> PurgeProgress:
        """How far it is."""
        if self._invalid is not None:
            raise ApplicationError(self._invalid, type=names.INVALID_REQUEST)
        return self._progress


def _read_start(arguments: tuple[Any, ...]) -> tuple[PurgeRequest, PurgeProgress]:
    """Validate what the clean-up was started with; only it itself gives what it has done."""
    info = workflow.info()
    if info.continued_run_id is not None and len(arguments) == 2:
        return read(PurgeRequest, arguments[:1]), PurgeProgress.model_validate(arguments[1])
    request = read(PurgeRequest, arguments)
    return request, PurgeProgress(by=request.by, started_at=info.start_time)


def _tell(progress: PurgeProgress, retention: Retention) -> str:
    """The clean-up as a story, for the Temporal UI (Markdown)."""
    where = f"at {progress.place.kind}" if progress.place else "at the beginning"
    headline = "done" if progress.is_done else where
    lines = [f"**Cleaning up the ledger**: {headline}", "", f"- wanted by {progress.by}"]
    if progress.as_of is not None:
        lines.append(f"- as of {progress.as_of:%Y-%m-%d %H:%M:%S} UTC")
    lines += ["", "| what | kept | gone |", "|---|---|---|"]
    for kind, kept in dict(retention).items():
        days = "for ever" if kept == FOREVER else f"{kept / timedelta(days=1):g} days"
        lines.append(f"| {kind.replace('_', ' ')} | {days} | {progress.gone.get(kind, 0)} |")
    return "\n".join(lines)
