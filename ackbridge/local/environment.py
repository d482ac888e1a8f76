"""Where the parts of a local stack are, and the environment they run in."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .ports import HOST, LoopbackPort

_SHUTDOWN_WITHIN = "5s"
# What a user has set for other deployments must not reach this one.
_NOT_INHERITED = ("ACKBRIDGE_", "SANDBOX_", "STRIPE_", "TEMPORAL_")


class Ports:
    """A port for each server of the stack, held as long as this object lives."""

    def __init__(self, wished: Mapping[str, int]) -> None:
        """Find them.

        Args:
            wished: by `engine`, `ui`, `gateway`, `sandbox`, `stripe`: these where they are free,
                and free ones instead where they are not.
        """
        self.engine = LoopbackPort(wished.get("engine"))
        self.ui = LoopbackPort(wished.get("ui"))
        self.gateway = LoopbackPort(wished.get("gateway"))
        self.sandbox = LoopbackPort(wished.get("sandbox"))
        self.stripe = LoopbackPort(wished.get("stripe"))

    def addresses(self) -> Addresses:
        """Where the servers are."""
        return Addresses(
            engine=f"{HOST}:{self.engine.number}",
            ui=f"http://{HOST}:{self.ui.number}",
            gateway=f"http://{HOST}:{self.gateway.number}",
            sandbox=f"http://{HOST}:{self.sandbox.number}",
            stripe=f"http://{HOST}:{self.stripe.number}",
        )


@dataclass(frozen=True)
class Addresses:
    """Where the servers of the stack are.

    Attributes:
        engine: `host:port` of gRPC.
        ui, gateway, sandbox, stripe: URLs, without a path.
    """

    engine: str
    ui: str
    gateway: str
    sandbox: str
    stripe: str

    @property
    def stripe_webhook(self) -> str:
        """Where Stripe's events go."""
        return f"{self.gateway}/callbacks/stripe"


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What a process of a stack gets of our own environment: nothing of other deployments."""
    return {name: value for name, value in environ.items() if not name.startswith(_NOT_INHERITED)}


def environment_for(
    addresses: Addresses, environ: Mapping[str, str], *, state: Path, integrations: Path
) -> dict[str, str]:
    """The environment of every part, with secrets made for this run.

    Args:
        environ: what else they get, as far as `inherited` lets it through.
        state: the folder of the ledger's file.
        integrations: the folder of integration files.
    """
    return inherited(environ) | {
        "ACKBRIDGE_ENVIRONMENT": "dev",
        "ACKBRIDGE_INTEGRATIONS": str(integrations.absolute()),
        "ACKBRIDGE_LEDGER_URL": f"sqlite:///{state / 'ledger.db'}",
        "ACKBRIDGE_PUBLIC_URL": addresses.gateway,
        "ACKBRIDGE_SHUTDOWN_WITHIN": _SHUTDOWN_WITHIN,
        "SANDBOX_API_KEY": secrets.token_urlsafe(24),
        "SANDBOX_BASE_URL": addresses.sandbox,
        "SANDBOX_WEBHOOK_SECRET": secrets.token_urlsafe(24),
        "STRIPE_API_KEY": f"sk_test_{secrets.token_hex(16)}",
        "STRIPE_BASE_URL": addresses.stripe,
        "STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(16)}",
        "TEMPORAL_ADDRESS": addresses.engine,
        # An empty file: the user's own may have another engine's certificates.
        "TEMPORAL_CONFIG_FILE": str(empty_temporal_config(state)),
        "TEMPORAL_NAMESPACE": "default",
    }


def empty_temporal_config(state: Path) -> Path:
    """Where Temporal's own configuration file is, for a stack with nothing to configure."""
    return state / "temporal.toml"
