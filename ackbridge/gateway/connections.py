"""The open connections of the gateway: which of them have to make room, and which took too long."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol

from ackbridge.contracts.edge import EdgeLimits, Network

SWEEP_INTERVAL = 0.5
"""Seconds between two looks at the connections that wait."""

LINGER = 5.0
"""Seconds for which what a client still sends is discarded, so that it gets to read the reply."""

OTHER_FILES = 4096
"""Files that are enough for everything else, and for what the kernel accepts at once."""

_IPV6_PREFIX = 64
_LONGEST_ADDRESS = 64
"""Characters, with a zone."""

_UNKNOWN = "unknown"


class Awaited(Enum):
    """What a connection waits for its client to do."""

    HEAD = auto()
    BODY = auto()
    NEXT = auto()  # the next request, or nothing any more
    READ = auto()  # read the reply
    CLOSE = auto()


OnRefused = Callable[[str, str, str], None]
"""Called with source, status and reason."""


class OpenConnection(Protocol):
    """A connection, as far as it concerns the others."""

    source: str
    is_trusted: bool
    has_been_served: bool
    """Whether a request of it was answered: it goes after those that have said nothing."""

    def give_up(self, waited_for: Awaited) -> None:
        """Close: the time is up."""

    def make_room(self) -> None:
        """Close: another connection needs its place, or its memory."""


class ConnectionLimiter:
    """All connections of one server, for one event loop.

    Those that wait for their clients never keep others out: the oldest one of the source that has
    most of them is closed for a new one. A client that sends its request at once waits for less
    than a round trip, and so does not become the oldest.
    """

    def __init__(
        self,
        limits: EdgeLimits,
        trusted: tuple[Network, ...] = (),
        on_refused: OnRefused = lambda _source, _status, _reason: None,
    ) -> None:
        """`on_refused` is told whom the server turned away."""
        self.limits = limits
        self.refused = on_refused
        self.most = most_connections(limits.connections)
        self._is_trusted = lru_cache(maxsize=4096)(lambda host: is_within(host, trusted))
        self._open: dict[str, int] = {}
        self._number = 0
        # By source, in the order in which they began to wait, with what for and until when.
        self._waiting: dict[str, dict[OpenConnection, tuple[Awaited, float]]] = {}
        self._pending_bytes = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._times = {
            Awaited.HEAD: limits.head_timeout.total_seconds(),
            Awaited.BODY: limits.body_timeout.total_seconds(),
            Awaited.NEXT: limits.idle_timeout.total_seconds(),
            Awaited.READ: limits.write_timeout.total_seconds(),
            Awaited.CLOSE: LINGER,
        }

    def is_trusted(self, host: str) -> bool:
        """Whether a host is a proxy of ours."""
        return self._is_trusted(host)

    def add(self, connection: OpenConnection) -> bool:
        """Count a new connection; False if there is no room for it."""
        source = connection.source
        of_source = self._open.get(source, 0)
        self._open[source] = of_source + 1
        self._number += 1
        if self._sweep is None:
            self._sweep_later()
        if not connection.is_trusted and of_source >= self.limits.connections_per_source:
            return self._evict(source)
        return self._number <= self.most or self._evict(self._most_waiting())

    def remove(self, connection: OpenConnection) -> None:
        """Forget a connection that is closed."""
        self.resume(connection)
        source = connection.source
        self._number -= 1
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]

    def wait(self, connection: OpenConnection, what: Awaited) -> None:
        """The connection waits from now on."""
        until = asyncio.get_running_loop().time() + self._times[what]
        waiting = self._waiting.setdefault(connection.source, {})
        waiting.pop(connection, None)
        waiting[connection] = (what, until)

    def resume(self, connection: OpenConnection) -> None:
        """The connection does not wait any more."""
        waiting = self._waiting.get(connection.source)
        if waiting is None:
            return
        waiting.pop(connection, None)
        if not waiting:
            del self._waiting[connection.source]

    def buffer(self, number: int) -> None:
        """Count bytes of bodies that are not complete, or, negative, are not pending any more.

        The connection that has waited for its body longest is closed when they become too many.
        """
        self._pending_bytes += number
        if number > 0 and self._pending_bytes > self.limits.pending_bytes:
            oldest = min(self._all(Awaited.BODY), key=lambda one: one[1], default=None)
            if oldest is not None:
                oldest[0].make_room()

    def _all(self, what: Awaited) -> Iterator[tuple[OpenConnection, float]]:
        for waiting in self._waiting.values():
            for connection, (waits_for, until) in waiting.items():
                if waits_for is what:
                    yield connection, until

    def _most_waiting(self) -> str:
        return max(self._waiting, key=lambda source: len(self._waiting[source]), default="")

    def _evict(self, source: str) -> bool:
        waiting = self._waiting.get(source)
        if not waiting:
            return False
        silent = (one for one in waiting if not one.has_been_served)
        evicted = next(silent, None) or next(iter(waiting))
        self.resume(evicted)
        evicted.make_room()
        return True

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(SWEEP_INTERVAL, self._give_up_expired)

    def _give_up_expired(self) -> None:
        now = asyncio.get_running_loop().time()
        expired = [
            (connection, what)
            for waiting in self._waiting.values()
            for connection, (what, until) in waiting.items()
            if until <= now
        ]
        for connection, what in expired:
            connection.give_up(what)
        self._sweep = None
        if self._number:
            self._sweep_later()


def most_connections(configured: int) -> int:
    """How many connections may be open, so that files stay free for everything else."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return configured
    return max(1, min(configured, max(files // 4, files - OTHER_FILES)))


def allow_many_files() -> None:
    """Raise the limit of open files as far as the process may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a client has, as IPv4 where it is one; None if the text is none."""
    return _parse_address(host) if len(host) <= _LONGEST_ADDRESS else None


@lru_cache(maxsize=8192)
def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def source_of(host: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 network of 64 bits."""
    return _source_of(host) if len(host) <= _LONGEST_ADDRESS else _UNKNOWN


@lru_cache(maxsize=8192)
def _source_of(host: str) -> str:
    address = _parse_address(host)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_PREFIX), strict=False))
    return _UNKNOWN if address is None else str(address)


def is_within(host: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of the networks."""
    address = parse_address(host)
    return address is not None and any(address in network for network in networks)
