"""The providers of the measurement, in a process of their own.

Orders of `/<name>` are answered after the delay of the latest `PUT /<name>/delay`; how many were
in flight at most since then is at `/<name>/in-flight`. A job is asked for at `/jobs/<id>`: the
times of its questions are at `/asked`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, defaultdict

from aiohttp import web

READY = "the providers listen"


def main() -> None:
    """Serve on the port that is given, until killed."""
    delays: dict[str, float] = defaultdict(float)
    in_flight, most = Counter[str](), Counter[str]()
    asked: dict[str, list[float]] = {}

    async def set_delay(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        delays[name] = (await request.json())["seconds"]
        most[name] = 0
        return web.Response(status=204)

    async def order(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        in_flight[name] += 1
        most[name] = max(most[name], in_flight[name])
        await asyncio.sleep(delays[name])
        in_flight[name] -= 1
        return web.json_response({"id": "o-1"})

    async def most_in_flight(request: web.Request) -> web.Response:
        return web.json_response({"most": most[request.match_info["name"]]})

    async def job(_request: web.Request) -> web.Response:
        number = f"j-{len(asked)}"
        asked[number] = [time.time()]
        return web.json_response({"id": number})

    async def state(request: web.Request) -> web.Response:
        times = asked[request.match_info["id"]]
        times.append(time.time())
        return web.json_response({"state": "open"})

    async def all_asked(_request: web.Request) -> web.Response:
        return web.json_response(list(asked.values()))

    app = web.Application()
    app.router.add_put("/{name}/delay", set_delay)
    app.router.add_post("/{name}/orders", order)
    app.router.add_get("/{name}/in-flight", most_in_flight)
    app.router.add_post("/jobs", job)
    app.router.add_get("/jobs/{id}", state)
    app.router.add_get("/asked", all_asked)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=lambda *_: print(READY, flush=True),
        access_log=None,
    )


if __name__ == "__main__":
    main()
