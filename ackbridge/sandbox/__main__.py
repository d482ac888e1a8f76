"""`python -m ackbridge.sandbox`: the simulated provider as a process."""

from __future__ import annotations

import argparse
import os
import sys

import uvicorn
from pydantic import ValidationError

from .event_log import MAX_EVENTS
from .fault_rates import Rates
from .provider import create_provider
from .serving import build_config


def main() -> int:
    """Serve until SIGTERM. Exit 2 when an option is wrong or a secret is not set."""
    options = _read_options()
    secrets = {name: os.environ.get(name) for name in (options.api_key_env, options.secret_env)}
    api_key, secret = secrets[options.api_key_env], secrets[options.secret_env]
    if not api_key or not secret:
        unset = ", ".join(name for name, value in secrets.items() if not value)
        print(f"the sandbox needs {unset} in its environment", file=sys.stderr)
        return 2
    provider = create_provider(api_key, secret, options.rates, max_events=options.max_events)
    config = build_config(
        provider,
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run()
    return 0


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ackbridge.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8701)
    parser.add_argument(
        "--api-key-env", default="SANDBOX_API_KEY", help="the environment variable with the API key"
    )
    parser.add_argument(
        "--webhook-secret-env",
        dest="secret_env",
        default="SANDBOX_WEBHOOK_SECRET",
        help="the environment variable with the secret that signs callbacks",
    )
    parser.add_argument(
        "--rates",
        type=_rates,
        default=Rates(),
        metavar="JSON",
        help='random faults: \'{"silent": 0.02, "duplicate": 0.1, "delay_ms": 20, "seed": 7}\'',
    )
    parser.add_argument(
        "--keep",
        dest="max_events",
        type=int,
        default=MAX_EVENTS,
        help="how many events are kept; older ones are dropped and counted",
    )
    return parser.parse_args()


def _rates(text: str) -> Rates:
    try:
        return Rates.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise argparse.ArgumentTypeError(f"{field}: {first['msg']}") from None


if __name__ == "__main__":
    sys.exit(main())
