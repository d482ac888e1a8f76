"""How workflows run: in the SDK's sandbox, without what it costs where it guards nothing.

Two things are dear in the sandbox. It loads every module anew for every workflow that is not
passed through: all of ours are, and `tests/unit/workflows/test_imports.py` reads them for what the
sandbox would have caught at loading. And it is entered for every payload, to ask the workflow in
which context that is to be converted: our converter knows no contexts, so nobody has to be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio.converter import SerializationContext, StorageDriverStoreContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import Info

PASSED_THROUGH = ("pydantic", "pydantic_core", "annotated_types", "ackbridge", "workflows")


def workflow_runner() -> WorkflowRunner:
    """The sandbox every workflow of ours runs in, here and in the replayer."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH)
    return LightSandboxRunner(SandboxedWorkflowRunner(restrictions=restrictions))


class LightSandboxRunner(WorkflowRunner):
    """Another runner, which is entered only to run workflows.

    Right for data converters without contexts and without external storage, as ours is.
    """

    def __init__(self, runner: WorkflowRunner) -> None:
        self._runner = runner

    def prepare_workflow(self, defn: Any) -> None:
        """See `WorkflowRunner`."""
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """See `WorkflowRunner`."""
        return _Instance(self._runner.create_instance(det))

    def set_worker_level_failure_exception_types(
        self, types: Sequence[type[BaseException]]
    ) -> None:
        """See `WorkflowRunner`."""
        self._runner.set_worker_level_failure_exception_types(types)


class _Instance(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance) -> None:
        self._instance = instance

    def activate(self, act: Any) -> Any:
        return self._instance.activate(act)

    def get_serialization_context(
        self,
        command_info: object,  # noqa: ARG002 -- the SDK's signature
    ) -> SerializationContext | None:
        return None

    def get_external_store_context(
        self,
        command_info: object,  # noqa: ARG002 -- the SDK's signature
    ) -> StorageDriverStoreContext:
        return StorageDriverStoreContext(target=None)

    def get_info(self) -> Info:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()
