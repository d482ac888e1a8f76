"""Which addresses requests may go to; checked whenever a connection is made.

Files name hosts, and answers of providers contain URLs, but what a name resolves to is decided by
whoever runs its name server, and may change between two requests. So the check is about the address
that is connected to.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

from ackbridge.contracts.edge import Network

Address: TypeAlias = IPv4Address | IPv6Address

_NEVER_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments; the metadata service of Oracle Cloud
        "168.63.129.16/32",  # the metadata service of Azure
        "fec0::/10",  # site-local
    )
)
"""What `ipaddress` takes for public."""

_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind NAT64 (RFC 6052)."""


class EgressError(OSError):
    """A host has no address that requests may go to."""


@dataclass(frozen=True)
class Egress:
    """The addresses that requests of one connection pool may go to.

    Public addresses, loopback under its own name (`localhost`, `127.0.0.1`), and `networks`.
    """

    networks: tuple[Network, ...] = ()

    def allows(self, host: str, address: str) -> bool:
        """Whether requests for a host may go to an address that its name has."""
        found = _embedded(ipaddress.ip_address(address))
        if is_public(found) or (found.is_loopback and is_loopback_host(host)):
            return True
        return any(found in network for network in self.networks)


PUBLIC: Final = Egress()

ANYWHERE: Final = Egress((IPv4Network("0.0.0.0/0"), IPv6Network("::/0")))
"""Without a check, for tools that simulate a provider."""


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet: not to a host, a link, a site or a group."""
    address = _embedded(address)
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in _NEVER_PUBLIC)


def is_loopback_host(host: str) -> bool:
    """Whether a host is this machine by its usual name, whatever it resolves to."""
    name = host.rstrip(".").lower()
    try:
        return _embedded(ipaddress.ip_address(name.strip("[]"))).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def literal_address(host: str) -> Address | None:
    """The address that a host is, also in forms such as `0x7f.1`; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def why_refused(host: str, networks: Iterable[Network]) -> str | None:
    """Why a host in a file can never be reached; None for a name, or an address that is allowed."""
    address = literal_address(host)
    if address is None or Egress(tuple(networks)).allows(host, str(address)):
        return None
    return (
        "has an address that is not public (private, link-local, or of a metadata service); list"
        " its network in private_networks where requests may go there"
    )


def _embedded(address: Address) -> Address:
    """The IPv4 address within an IPv6 address, where there is one."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour or address
