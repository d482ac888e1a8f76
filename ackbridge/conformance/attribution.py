"""Whose a request is: found in whatever it says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ackbridge.contracts.calls import CallRequest


@dataclass(frozen=True)
class Attribution:
    """Whose a request is, as far as it says.

    Attributes:
        key: the idempotency key in it; of an acknowledgement, without its own ending.
        whole_key: with that ending.
        work_id: the work whose reference is in it.
    """

    call_id: str | None = None
    key: str | None = None
    whole_key: str | None = None
    work_id: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether it says anything of a call."""
        return self.call_id is not None or self.work_id is not None


class Callers:
    """The calls that a provider may hear of, and the references it has given them."""

    def __init__(self) -> None:
        self._requests: dict[str, CallRequest] = {}
        self._references: dict[str, str] = {}
        self._alone: dict[str, str] = {}

    def add(self, request: CallRequest) -> None:
        """A call is about to come."""
        self._requests[request.call_id] = request

    def learn(self, reference: str, work_id: str) -> None:
        """A work is known by this reference from now on."""
        self._references[reference] = work_id

    def attend(self, request: CallRequest) -> None:
        """The only call of its operation for now."""
        self._alone[request.operation] = request.call_id

    def whoever_is_alone(self, operation: str) -> Attribution:
        """The only call of an operation, if there is one."""
        return Attribution(call_id=self._alone.get(operation))

    def attribute(self, said: str) -> Attribution:
        """Find a key, a call id, the caller's own key, or a reference in a text."""
        work_id = next((w for reference, w in self._references.items() if reference in said), None)
        for call_id, request in self._requests.items():
            key = re.search(re.escape(call_id) + r":\d+", said)
            if key is not None:
                whole = re.search(re.escape(key.group()) + r":(success|failed)", said)
                ending = whole.group() if whole else None
                return Attribution(call_id, key.group(), ending, work_id)
            if call_id in said or request.key in said:
                return Attribution(call_id, work_id=work_id)
        return Attribution(work_id=work_id)
