"""localstripe as a process of its own, against the integration file of Stripe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from ackbridge.catalog.loading import load_integration
from ackbridge.clock import utc_now
from ackbridge.local.ports import LoopbackPort
from ackbridge.local.processes import StackProcess, stripe_plan
from ackbridge.security.inbound import build_verifier
from ackbridge.security.secrets import Secrets
from ackbridge.settings import app_folder
from tests.support.sandbox_client import CallbackReceiver
from tests.support.serving import serve

SECRET = "whsec_made-up"
PICKLE = Path("/tmp/localstripe.pickle")  # noqa: S108 -- the very file that must not be touched


@pytest.fixture
def receiver() -> CallbackReceiver:
    return CallbackReceiver()


@pytest.fixture
def stripe(receiver: CallbackReceiver, tmp_path: Path) -> Iterator[str]:
    port = LoopbackPort()
    with serve(receiver) as url:
        part = StackProcess(
            "stripe",
            stripe_plan(port.number, f"{url}/callbacks/stripe", SECRET),
            environ={},
            log=tmp_path / "stripe.log",
            folder=tmp_path,
            start_timeout=timedelta(seconds=60),
        )
        part.start()
        try:
            yield f"http://127.0.0.1:{port.number}"
        finally:
            part.stop(timedelta(seconds=10))


def test_payment_is_answered_and_called_back(stripe: str, receiver: CallbackReceiver) -> None:
    """The signed event has our metadata, and its signature verifies by the integration file."""
    before = PICKLE.stat().st_mtime_ns if PICKLE.exists() else None
    paid = httpx.post(
        f"{stripe}/v1/payment_intents",
        headers={"authorization": "Bearer sk_test_made-up"},
        data={
            "amount": "5",
            "currency": "eur",
            "payment_method": "pm_card_visa",
            "payment_method_types[0]": "card",
            "confirm": "true",
            "metadata[call_id]": "stripe.create_payment.k",
        },
        trust_env=False,
    )
    assert paid.status_code == 200, paid.text
    callback = receiver.take("/callbacks/stripe")
    assert callback.event["type"] == "payment_intent.succeeded"
    assert callback.event["data"]["object"]["metadata"] == {"call_id": "stripe.create_payment.k"}
    integration = load_integration(app_folder() / "integrations" / "stripe.yaml", {})
    assert integration.callbacks is not None
    secrets = Secrets({"STRIPE_WEBHOOK_SECRET": SECRET}, Path())
    build_verifier(integration.callbacks.verify, secrets, utc_now).verify(
        callback.headers, callback.body
    )
    assert (PICKLE.stat().st_mtime_ns if PICKLE.exists() else None) == before


def test_our_code_does_not_import_localstripe() -> None:
    """It is a separate program with its own licence."""
    assert not [name for name in sys.modules if name.partition(".")[0] == "localstripe"]
