"""A subscriber: a user's own service that receives notices, and verifies their signatures."""

from __future__ import annotations

import base64
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook, WebhookVerificationError

from ackbridge.catalog.loading import SUBSCRIBERS_FOLDER
from ackbridge.contracts.deliveries import NoticeBody, NoticeEvent
from ackbridge.local.ports import HOST

NAME = "shop"
"""The subscriber, as in `reply_to`."""


@dataclass
class DemoSubscriber:
    """Notices that the service received, verified and each once; `rejected` did not verify."""

    secret: str
    notices: list[NoticeBody] = field(default_factory=list)
    rejected: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/notices")
        async def receive(request: Request) -> Response:
            body = await request.body()
            try:
                parsed: dict[str, Any] = Webhook(self.secret).verify(body, dict(request.headers))
            except WebhookVerificationError:
                self.rejected += 1
                return Response(status_code=401)
            notice = NoticeBody.model_validate(parsed)
            if notice.id not in {known.id for known in self.notices}:
                self.notices.append(notice)
            return Response(status_code=204)

        return app

    def notices_of(self, call_id: str) -> list[NoticeBody]:
        found = [notice for notice in self.notices if notice.data.call_id == call_id]
        return sorted(found, key=lambda notice: notice.call.sequence)


@contextmanager
def run_subscriber(integrations: Path) -> Iterator[DemoSubscriber]:
    """Run the service, and configure it as a subscriber in a folder of integration files."""
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
    subscriber = DemoSubscriber(secret)
    with _serve(subscriber.app()) as url:
        folder = integrations / SUBSCRIBERS_FOLDER
        folder.mkdir()
        key = folder / f"{NAME}.secret"
        key.touch(mode=0o600)
        key.write_text(secret)
        file = {
            "subscriber": NAME,
            "url": f"{url}/notices",
            "secrets": [f"file:{key.absolute()}"],
            "events": [str(event) for event in NoticeEvent],
        }
        (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
        yield subscriber


@contextmanager
def _serve(app: FastAPI) -> Iterator[str]:
    """Serve an application in a thread; it listens when this returns."""
    with socket.create_server((HOST, 0)) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
