"""The four steps as one Restate workflow, with the callback as a durable promise.

The provider calls Restate's own ingress, which hands the callback to the workflow by its key.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from datetime import timedelta
from typing import Any

import restate
from hypercorn.asyncio import serve as serve_http
from hypercorn.config import Config
from restate.exceptions import TerminalError

from .http_server import READY
from .provider import Provider
from .records import Records, open_records

DEADLINE = timedelta(seconds=30)
RESPONSE = "response"
ALREADY_RESOLVED = 409


def define_call(provider: Provider, records: Records, ingress: str) -> restate.Workflow:
    """The workflow `Call`, with the handlers `run` and `callback`."""
    call = restate.Workflow("Call")

    @call.main()
    async def run(ctx: restate.WorkflowContext, payload: dict[str, Any]) -> None:
        key = ctx.key()
        callback_url = f"{ingress}/Call/{key}/callback"
        await ctx.run_typed("prepare", records.claim, key=key)
        reference = await ctx.run_typed(
            "send", provider.send, key=key, payload=payload, callback_url=callback_url
        )
        match await restate.select(
            response=ctx.promise(RESPONSE).value(), deadline=ctx.sleep(DEADLINE)
        ):
            case ["response", response]:
                await ctx.run_typed("record", records.record, key=key, response=response)
                await ctx.run_typed(
                    "acknowledge", provider.acknowledge, key=key, reference=reference
                )
            case _:
                raise TerminalError(f"no response within {DEADLINE}")

    @call.handler()
    async def callback(ctx: restate.WorkflowSharedContext, event: dict[str, Any]) -> None:
        try:
            await ctx.promise(RESPONSE).resolve(event)
        except TerminalError as error:
            # A duplicate: the first one stands.
            if error.status_code != ALREADY_RESOLVED:
                raise

    return call


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    provider = Provider(options.provider)
    records = await open_records(options.records, 1)
    config = Config()
    config.bind = [f"127.0.0.1:{options.port}"]
    # Restate multiplexes all invocations over few connections.
    config.h2_max_concurrent_streams = 2_147_483_647
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(READY, flush=True)
    try:
        await serve_http(
            restate.app([define_call(provider, records, options.ingress)]),
            config,
            shutdown_trigger=stopped.wait,
        )
    finally:
        await records.close()
        await provider.close()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", required=True, help="its URL")
    parser.add_argument("--ingress", required=True, help="URL of Restate's ingress")
    parser.add_argument("--records", required=True, help="URL of the database with the responses")
    parser.add_argument("--port", required=True, type=int)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
