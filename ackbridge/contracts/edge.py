"""The bounds of the gateway's HTTP server, for every connection, whoever it is."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from .wire import Duration, StrictModel

_Time = Annotated[Duration, Field(gt=timedelta(0))]
_Number = Annotated[int, Field(ge=1)]


Network = IPv4Network | IPv6Network


def _parse_network(written: object) -> object:
    return ip_network(written.strip(), strict=False) if isinstance(written, str) else written


CidrNetwork = Annotated[
    Network, BeforeValidator(_parse_network), WithJsonSchema({"type": "string"})
]
"""An address, or a network in CIDR notation."""


class EdgeLimits(StrictModel):
    """What one client may take of the gateway.

    Attributes:
        connections: open at once. The connections that wait for their client make room for new
            ones; fewer are open where the process may have few files open.
        connections_per_source: of one address, or one IPv6 network of 64 bits. Trusted proxies are
            not limited.
        head_bytes: of a request's head, its URL included; also of its trailers.
        headers: in a head, and in trailers.
        body_bytes: of a request. Providers have a limit of their own, `callbacks.max_bytes`.
        pending_bytes: of all bodies that have not arrived completely.
        head_timeout: from the first byte, or from the connection, to the end of the head.
        body_timeout: from the head to the end of the body.
        idle_timeout: between two requests.
        write_timeout: for which a client may leave a reply unread.
    """

    connections: _Number = 1024
    connections_per_source: _Number = 512
    head_bytes: _Number = 32 * 1024
    headers: _Number = 128
    body_bytes: _Number = 16 * 1024 * 1024
    pending_bytes: _Number = 64 * 1024 * 1024
    head_timeout: _Time = timedelta(seconds=10)
    body_timeout: _Time = timedelta(seconds=15)
    idle_timeout: _Time = timedelta(seconds=75)
    write_timeout: _Time = timedelta(seconds=15)


class StreamSettings(StrictModel):
    """Streams of events for pages: `ACKBRIDGE_STREAMS_*`.

    Attributes:
        secrets: references of the secrets that sign event tokens, separated by commas: the first
            signs, all verify. Each has 32 characters or more, and all processes have the same.
            Unset: there are no streams.
        origins: of the pages that may read streams, separated by commas, such as
            `https://shop.example`.
        lifetime: of an event token, and of a stream that was opened with it.
        most: open at once in one process. Each is a connection, see `EdgeLimits`.
        poll_every: how often the ledger is asked for news, once for all streams of a process.
    """

    secrets: str = ""
    origins: str = ""
    lifetime: Duration = Field(default=timedelta(minutes=10), gt=timedelta(0), le=timedelta(days=1))
    most: _Number = 500
    poll_every: _Time = timedelta(seconds=1)
