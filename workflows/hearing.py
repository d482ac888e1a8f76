"""What a call has heard: each message once, and every one that changed nothing with its reason."""

from __future__ import annotations

from collections import deque

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts import ProviderMessage, SuppressedMessage


class Hearing:
    """Messages waiting to be dealt with, in the order they came."""

    def __init__(self) -> None:
        self._waiting: deque[ProviderMessage] = deque()
        self._seen: set[str] = set()
        self._suppressed: list[SuppressedMessage] = []
        self.duplicates = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def hear(self, message: ProviderMessage) -> None:
        """Take a message; one that was heard before is suppressed."""
        if message.event_key in self._seen:
            self.duplicates += 1
            self.suppress(message, "duplicate: this call has seen the event key")
        else:
            self._seen.add(message.event_key)
            self._waiting.append(message)

    def next(self) -> ProviderMessage:
        """The message that has waited longest."""
        return self._waiting.popleft()

    def suppress(self, message: ProviderMessage, reason: str) -> None:
        """A message changed nothing; the ledger's log will say why."""
        self._suppressed.append(SuppressedMessage(event_key=message.event_key, reason=reason))

    @property
    def has_suppressed(self) -> bool:
        """Whether something waits to be logged."""
        return bool(self._suppressed)

    def take_suppressed(self) -> tuple[SuppressedMessage, ...]:
        """What was suppressed since the last time, for the ledger's log."""
        taken, self._suppressed = tuple(self._suppressed), []
        return taken
