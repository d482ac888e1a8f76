"""Run localstripe, a Stripe-compatible server by other authors, as a process of its own.

Its own command listens on every IPv6 address and stores its state in a file in `/tmp` that may
belong to another user; here it listens on loopback and stores nothing. None of our code imports
it.
"""

from __future__ import annotations

import argparse
import runpy
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ackbridge.local.stripe_process")
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args().port
    program = runpy.run_module("localstripe.server", run_name="localstripe_server")
    _keep_in_memory(program["store"])
    program["web"].run_app(program["app"], host="127.0.0.1", port=port, access_log=None, print=None)


def _keep_in_memory(store: Any) -> None:
    type(store).dump_to_disk = lambda _store: None


if __name__ == "__main__":
    main()
