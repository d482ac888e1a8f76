"""`python -m ackbridge.sandbox`: the simulated provider as a process of its own."""

from __future__ import annotations

import argparse
import os
import sys

import uvicorn

from .behaviour import Rates
from .provider import create_provider


def main() -> int:
    """Serve until SIGTERM. Exit 2 when a secret is not set."""
    options = _read_options()
    secrets = {name: os.environ.get(name) for name in (options.api_key_env, options.secret_env)}
    api_key, secret = secrets[options.api_key_env], secrets[options.secret_env]
    if not api_key or not secret:
        unset = ", ".join(name for name, value in secrets.items() if not value)
        print(f"the sandbox needs {unset} in its environment", file=sys.stderr)
        return 2
    rates = Rates(
        delay_ms=options.delay_ms,
        duplicate_rate=options.duplicate_rate,
        early_rate=options.early_rate,
        seed=options.seed,
    )
    uvicorn.run(
        create_provider(api_key, secret, rates),
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    return 0


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ackbridge.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8701)
    parser.add_argument(
        "--api-key-env", default="SANDBOX_API_KEY", help="the variable with the API key"
    )
    parser.add_argument(
        "--webhook-secret-env",
        dest="secret_env",
        default="SANDBOX_WEBHOOK_SECRET",
        help="the variable with what callbacks are signed with",
    )
    parser.add_argument("--delay-ms", type=int, default=20, help="before a callback")
    parser.add_argument("--duplicate-rate", type=float, default=0.0, help="sent twice, 0 to 1")
    parser.add_argument("--early-rate", type=float, default=0.0, help="before the receipt, 0 to 1")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
