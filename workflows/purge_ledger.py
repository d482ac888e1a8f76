"""The workflow `PurgeLedger`: delete expired records from the ledger, page by page."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import names
    from ackbridge.contracts.purge import (
        KEEP_FOREVER,
        PurgePageResult,
        PurgeProgress,
        PurgeRequest,
        PurgeStep,
        Retention,
    )
    from ackbridge.contracts.wire import InvalidInputError
    from workflows.hosting import markdown
    from workflows.hosting.audit import AuditTrail
    from workflows.hosting.inputs import invalid_request, read_start
    from workflows.hosting.temporal_host import should_continue_as_new

PAGE_TIMEOUT = timedelta(minutes=10)
"""For one attempt; a page takes seconds."""
HEARTBEAT_TIMEOUT = timedelta(seconds=30)
"""Longer than any transaction of a page may take."""
RETRIES = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))
"""Unlimited: pages are idempotent, deleted rows stay deleted."""


@workflow.defn(name=names.PURGE_LEDGER)
class PurgeLedger:
    """One pass over the ledger."""

    @workflow.init
    def __init__(self, *arguments: Any) -> None:
        self._invalid: str | None = None
        try:
            self._request, progress = read_start(arguments, PurgeRequest, PurgeProgress)
        except InvalidInputError as error:
            self._invalid = str(error)
            return
        self._progress = progress or PurgeProgress(
            by=self._request.by, started_at=workflow.info().start_time
        )

    @workflow.run
    async def run(self, *arguments: Any) -> PurgeProgress:
        """Delete everything that has expired.

        Raises:
            ApplicationError: of type InvalidRequest.
            ActivityError: the retention of calls is shorter than the namespace's.
        """
        if self._invalid is not None:
            raise invalid_request(self._invalid)
        audit = AuditTrail()
        audit.record_start(names.PURGE_LEDGER, arguments)
        await audit.finish()
        self._show()
        while not self._progress.is_done:
            if should_continue_as_new():
                workflow.continue_as_new(args=[self._request, self._progress])
            self._add(await self._purge_page())
            self._show()
        return self._progress

    async def _purge_page(self) -> PurgePageResult:
        progress = self._progress
        page: PurgePageResult = await workflow.execute_activity(
            names.PURGE_PAGE,
            PurgeStep(
                retention=self._request.retention, as_of=progress.as_of, place=progress.place
            ),
            result_type=PurgePageResult,
            start_to_close_timeout=PAGE_TIMEOUT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RETRIES,
            summary=f"delete expired {progress.place.kind if progress.place else 'records'}",
        )
        return page

    def _add(self, page: PurgePageResult) -> None:
        self._progress = self._progress.model_copy(
            update={
                "as_of": page.as_of,
                "place": page.place,
                "gone": dict(Counter(self._progress.gone) + Counter(page.gone)),
                "is_done": page.place is None,
            }
        )

    @workflow.query(name=names.PROGRESS)
    def progress(self) -> PurgeProgress:
        if self._invalid is not None:
            raise invalid_request(self._invalid)
        return self._progress

    def _show(self) -> None:
        workflow.set_current_details(_render(self._progress, self._request.retention))


def _render(progress: PurgeProgress, retention: Retention) -> str:
    position = f"at {progress.place.kind}" if progress.place else "at the beginning"
    items = [f"requested by {progress.by}"]
    if progress.as_of is not None:
        items.append(f"as of {markdown.timestamp(progress.as_of)}")
    return markdown.document(
        f"**Purging the ledger**: {'done' if progress.is_done else position}",
        markdown.bullets(items),
        markdown.table(
            ["records", "kept for", "deleted"],
            (
                [kind.replace("_", " "), _days(kept), str(progress.gone.get(kind, 0))]
                for kind, kept in dict(retention).items()
            ),
        ),
    )


def _days(kept: timedelta) -> str:
    return "ever" if kept == KEEP_FOREVER else f"{kept / timedelta(days=1):g} days"
