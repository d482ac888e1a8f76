"""Workarounds for the Temporal SDK; see the package for when each can go."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Final, NoReturn, Self

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverter,
    PayloadConverter,
    SerializationContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
    WithSerializationContext,
    WorkflowSerializationContext,
)
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import Info

from ackbridge.contracts import names
from ackbridge.contracts.wire import ENVELOPE, NotEncrypted, UnreadablePayload
from ackbridge.errors import MissingKeyError

_LOOP_TURNS: Final = 3
"""What the core has handed over by now has been noted after as many turns of the event loop."""
_UNDER_WAY: Final = timedelta(seconds=1)
"""The core hands a result to the workflow at once, unless the workflow is answering a query."""
_LEGACY_QUERY: Final = "legacy_query"
_UNHANDLED_COMMAND: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
_ANSWERED_WITHIN: Final = timedelta(seconds=2)
"""A query is answered in milliseconds; a result that waited for longer is handed over."""

log = logging.getLogger(__name__)


ENCRYPTED: Final = b"binary/encrypted"
"""The encoding of encrypted payloads, as in the samples of Temporal's SDKs."""

NOT_ENCRYPTED: Final = "ackbridge-not-encrypted"
"""Metadata of a payload that arrived plain where it has to be encrypted. It is never stored."""


class LenientPayloadConverter(PydanticPayloadConverter):
    """Plain JSON and pydantic; a payload that does not convert becomes `UnreadablePayload`.

    Where a type is asked for, errors stay errors. The arguments of runs, signals and updates are
    converted without a type: their reader validates them and fails the workflow, or reports the
    problem, instead of the workflow task.

    One instance serves the process, with one cache of type adapters: they take longer to build than
    to use.
    """

    others: ClassVar[PayloadConverter | None] = None
    """Reads the encodings that this one does not know."""

    _instance: ClassVar[LenientPayloadConverter | None] = None

    def __new__(cls) -> Self:
        if type(cls._instance) is not cls:
            instance = super().__new__(cls)
            PydanticPayloadConverter.__init__(instance)
            cls._instance = instance
        only: Self = cls._instance
        return only

    def __init__(self) -> None:
        """Do nothing: `__new__` has initialised the instance."""

    def from_payloads(
        self, payloads: Sequence[Payload], type_hints: list[type] | None = None
    ) -> list[Any]:
        """Convert; without type hints each payload by itself, and without raising.

        Raises:
            MissingKeyError: one is still encrypted.
        """
        if type_hints is None:
            return [self._convert(payload) for payload in payloads]
        try:
            if self.others is None:
                return super().from_payloads(payloads, type_hints)
            hints = [*type_hints, *[None] * len(payloads)]
            return [self._read(one, hint) for one, hint in zip(payloads, hints, strict=False)]
        except Exception:
            _refuse_encrypted(payloads)
            raise

    def _read(self, payload: Payload, hint: type | None) -> Any:
        hints = [hint] if hint else None
        if self.others and payload.metadata.get("encoding") not in self.converters:
            (value,) = self.others.from_payloads([payload], hints)
        else:
            (value,) = super().from_payloads([payload], hints)
        return value

    def _convert(self, payload: Payload) -> Any:
        try:
            value = self._read(payload, None)
        except Exception:
            _refuse_encrypted([payload])
            encoding = payload.metadata.get("encoding", b"none").decode("ascii", "replace")
            return UnreadablePayload(
                problem=f"the payload does not read as plain JSON ({encoding})"
            )
        if NOT_ENCRYPTED in payload.metadata and isinstance(value, dict):
            return NotEncrypted(value)
        return value


def _refuse_encrypted(payloads: Iterable[Payload]) -> None:
    """Refuse payloads of ours that no codec has decrypted: this process has no keys."""
    if any(payload.data.startswith(ENVELOPE) for payload in payloads):
        raise MissingKeyError(
            "the engine's data is encrypted, and this process has no key for it: set"
            " ACKBRIDGE_ENCRYPTION_KEYS"
        )


_OUTCOMES: Final = frozenset(
    {
        *(names.CALL_FAILED, names.CALL_CANCELLED, names.KEY_REUSED),
        *(names.INVALID_REQUEST, names.NOT_DELIVERED),
    }
)
"""Types of failures that end a workflow as it should: they report what happened, not a defect."""


class OutcomeFailureConverter(DefaultFailureConverter):
    """Failures that report an outcome carry no stack trace, which would fill the Temporal UI."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        if isinstance(exception, ApplicationError) and exception.type in _OUTCOMES:
            exception.__traceback__ = None
        super().to_failure(exception, payload_converter, failure)


class EncodedOutcomeFailureConverter(OutcomeFailureConverter):
    """The same, with messages and stack traces as payloads, which a codec encrypts."""

    def __init__(self) -> None:
        super().__init__(encode_common_attributes=True)


DATA_CONVERTER = replace(
    pydantic_data_converter,
    payload_converter_class=LenientPayloadConverter,
    failure_converter_class=OutcomeFailureConverter,
)

PASSED_THROUGH = ("pydantic", "pydantic_core", "annotated_types", "ackbridge", "workflows")


def workflow_runner(converter: DataConverter = DATA_CONVERTER) -> WorkflowRunner:
    """The sandbox of our workflows, in workers and in the replayer, for this data converter.

    The sandbox reloads every module that is not passed through, for every workflow. All of ours are
    passed through: `tests/unit/workflows/test_imports.py` checks them for what the sandbox would
    have found while loading.
    """
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH)
    runner = SandboxedWorkflowRunner(restrictions=restrictions)
    return LightSandboxRunner(runner, has_contexts=uses_contexts(converter))


def uses_contexts(converter: DataConverter) -> bool:
    """Whether a part of a data converter is another one in a serialization context.

    The SDK's own parts have the method, and are the same in every context.
    """
    anywhere = WorkflowSerializationContext(namespace="", workflow_id="")
    parts = (converter.payload_converter, converter.payload_codec, converter.failure_converter)
    return any(
        isinstance(part, WithSerializationContext) and part.with_context(anywhere) is not part
        for part in parts
    )


class LightSandboxRunner(WorkflowRunner):
    """Wrap a runner so that its sandbox is entered only to run workflows.

    Signals whose payloads are still encrypted fail the workflow task: another worker may have the
    key, and the SDK would drop them.
    """

    def __init__(self, runner: WorkflowRunner, *, has_contexts: bool = False) -> None:
        """Wrap; `has_contexts`: the data converter is one that uses serialization contexts."""
        self._runner = runner
        self._has_contexts = has_contexts

    def prepare_workflow(self, defn: Any) -> None:
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _Instance(self._runner.create_instance(det), det.info, self._has_contexts)

    def set_worker_level_failure_exception_types(
        self, types: Sequence[type[BaseException]]
    ) -> None:
        self._runner.set_worker_level_failure_exception_types(types)


class _Instance(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance, info: Info, has_contexts: bool) -> None:
        self._instance = instance
        self._info = info
        self._has_contexts = has_contexts

    def activate(self, act: Any) -> Any:
        for job in act.jobs:
            if job.HasField("signal_workflow"):
                _refuse_encrypted(job.signal_workflow.input)
        return self._instance.activate(act)

    def get_serialization_context(self, command_info: Any) -> SerializationContext | None:
        if not self._has_contexts:
            return None
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(
        self,
        command_info: object,  # noqa: ARG002 -- the SDK's signature
    ) -> StorageDriverStoreContext:
        info = self._info
        return StorageDriverStoreContext(
            StorageDriverWorkflowInfo(
                namespace=info.namespace,
                id=info.workflow_id,
                run_id=info.run_id,
                type=info.workflow_type,
            )
        )

    def get_info(self) -> Info:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()


SHUTDOWN_TIMEOUT = timedelta(seconds=15)
"""How long a worker may take to shut down after the grace period of its activities."""


class BoundedShutdown:
    """Run a worker while the block runs; a context manager like the worker itself.

    `Worker.shutdown` may never return (temporalio 1.35, in one of a dozen runs under load, after
    every task of ours had ended). By then the worker no longer polls, and the server gives its open
    tasks to another worker.
    """

    def __init__(self, worker: Worker, grace: timedelta = timedelta(0)) -> None:
        self._worker = worker
        self._timeout = grace + SHUTDOWN_TIMEOUT

    async def __aenter__(self) -> Worker:
        return await self._worker.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Shut the worker down, or log that it took too long; raises its fatal error."""
        shutdown = asyncio.create_task(self._worker.__aexit__(kind, error, traceback))
        done, _ = await asyncio.wait({shutdown}, timeout=self._timeout.total_seconds())
        if not done:
            log.warning(
                "worker for queue %s did not shut down within %g s; exiting without it",
                self._worker.task_queue,
                self._timeout.total_seconds(),
            )
            return
        await shutdown


def exit_process(status: int) -> NoReturn:
    """End a process that has used a Temporal client, with this exit status.

    Threads of the SDK's core may still call into Python while the interpreter finalizes, and the
    process would abort with another status. Call it last: no `finally`, `atexit` or destructor runs
    after it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class _QueryAwareBridge:
    """A worker's connection to the SDK's core: results of local activities wait for queries."""

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge
        self._answered: dict[str, asyncio.Event] = {}
        self._expected: set[str] = set()
        self._local: dict[bytes, tuple[str, str]] = {}
        self._handed_over: dict[str, dict[str, float]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bridge, name)

    async def poll_workflow_activation(self) -> Any:
        while True:
            activation = await self._bridge.poll_workflow_activation()
            self._forget_resolved(activation)
            queries = [job.query_workflow for job in activation.jobs if _is(job, "query_workflow")]
            if not queries:
                return activation
            # A query without a workflow task of its own splits none.
            has_task = any(query.query_id != _LEGACY_QUERY for query in queries)
            if not (has_task and self._has_result_under_way(activation.run_id)):
                if activation.run_id not in self._expected:
                    self._answered[activation.run_id] = asyncio.Event()
                self._expected.discard(activation.run_id)
                return activation
            # Its answer would split the task; failed, the task is done again. The query comes with
            # it again, so results wait for it: of a second failure the core tells the server
            # nothing, and the call would stand still until the task times out.
            self._answered.setdefault(activation.run_id, asyncio.Event())
            self._expected.add(activation.run_id)
            self._handed_over.pop(activation.run_id, None)
            failed = WorkflowActivationCompletion(run_id=activation.run_id)
            failed.failed.failure.message = "a query came with a result of a local activity"
            # The harmless cause: something arrived in between.
            failed.failed.force_cause = _UNHANDLED_COMMAND
            await self._bridge.complete_workflow_activation(failed)

    async def complete_workflow_activation(self, completion: Any) -> None:
        # The next activation of the run may arrive before this returns.
        run_id = completion.run_id
        answered = None if run_id in self._expected else self._answered.get(run_id)
        try:
            await self._bridge.complete_workflow_activation(completion)
        finally:
            if answered is not None:
                answered.set()
                if self._answered.get(run_id) is answered:
                    del self._answered[run_id]

    async def poll_activity_task(self) -> Any:
        task = await self._bridge.poll_activity_task()
        if task.HasField("start") and task.start.is_local:
            run_id = task.start.workflow_execution.run_id
            self._local[task.task_token] = run_id, task.start.activity_id
        return task

    async def complete_activity_task(self, completion: Any) -> None:
        local = self._local.pop(completion.task_token, None)
        if local is not None:
            await self._wait_for_answer(local[0])
            self._handed_over.setdefault(local[0], {})[local[1]] = time.monotonic()
        await self._bridge.complete_activity_task(completion)

    async def _wait_for_answer(self, run_id: str) -> None:
        for _ in range(_LOOP_TURNS):
            await asyncio.sleep(0)
        answered = self._answered.get(run_id)
        if answered is None:
            return
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN.total_seconds()):
                await answered.wait()
        except TimeoutError:
            # Nobody asks any more.
            if run_id in self._expected:
                self._expected.discard(run_id)
                self._answered.pop(run_id, None)

    def _forget_resolved(self, activation: Any) -> None:
        handed_over = self._handed_over.get(activation.run_id)
        if handed_over is None:
            return
        for job in activation.jobs:
            if _is(job, "resolve_activity"):
                handed_over.pop(str(job.resolve_activity.seq), None)
            elif _is(job, "remove_from_cache"):
                handed_over.clear()
        if not handed_over:
            del self._handed_over[activation.run_id]

    def _has_result_under_way(self, run_id: str) -> bool:
        # One that is older belongs to an activity that was cancelled, or is tried again.
        since = time.monotonic() - _UNDER_WAY.total_seconds()
        return any(at > since for at in self._handed_over.get(run_id, {}).values())


def _is(job: Any, kind: str) -> bool:
    return bool(job.HasField(kind))


def hold_results_during_queries(worker: Worker) -> Worker:
    """Hand a local activity's result to the core only while none of its workflow's queries is open.

    The core ends a workflow task when its queries are answered and a result is still to be handed
    to the workflow. The activity's marker is in that task then, what the workflow does next is in
    the following one, and the history does not replay. Where the core was faster, the task is
    failed and done again.
    """
    worker._bridge_worker = _QueryAwareBridge(worker._bridge_worker)  # type: ignore[assignment]  # noqa: SLF001 -- there is no public way between a worker and the core
    return worker
