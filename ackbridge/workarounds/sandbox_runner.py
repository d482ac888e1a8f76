"""Run workflows in the SDK's sandbox at a lower cost; see the package for when this can go.

The sandbox reloads every module that is not passed through, for every workflow. All of ours are
passed through: `tests/unit/workflows/test_imports.py` checks them for what the sandbox would have
found while loading. The sandbox is also entered for every payload, to ask the workflow for a
serialization context. Our converter uses no contexts.
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
    """The sandbox of our workflows, in workers and in the replayer."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH)
    return LightSandboxRunner(SandboxedWorkflowRunner(restrictions=restrictions))


class LightSandboxRunner(WorkflowRunner):
    """Wrap a runner so that its sandbox is entered only to run workflows.

    Only for data converters without contexts and without external storage, such as ours.
    """

    def __init__(self, runner: WorkflowRunner) -> None:
        self._runner = runner

    def prepare_workflow(self, defn: Any) -> None:
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _Instance(self._runner.create_instance(det))

    def set_worker_level_failure_exception_types(
        self, types: Sequence[type[BaseException]]
    ) -> None:
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
