"""Large payloads and bodies in S3, against moto in a process of its own."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import pytest_asyncio
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.worker import Replayer

from ackbridge.client.purge import check_object_retention
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import OutcomeStatus
from ackbridge.contracts.identity import AuthSettings, Role
from ackbridge.contracts.purge import KEEP_FOREVER, Retention
from ackbridge.errors import ConfigurationError, LedgerUnavailableError, ObjectStoreError
from ackbridge.gateway.codec import build_codec_app
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.dev_server import EmbeddedEngine
from ackbridge.objects.s3 import S3Bucket, open_bucket
from ackbridge.security.encryption import load_encryption
from ackbridge.security.http_auth import HttpAuth, new_api_key, write_api_keys
from ackbridge.temporal.connect import client_options
from ackbridge.temporal.data_converter import load_data_converter
from ackbridge.temporal.external_storage import BucketClient, bucket_of
from ackbridge.workarounds.temporal_sdk import workflow_runner
from tests.support.stage import Stage, set_up
from workflows import WORKFLOWS

KEYS = {
    "ACKBRIDGE_ENCRYPTION_KEYS": "2026=env:KEY",
    "KEY": base64.b64encode(b"k" * 32).decode(),
}
LARGE = "planted" * 20_000
PATIENCE = timedelta(seconds=30)


@pytest.fixture
def bucket_environment(aws_environment: dict[str, str]) -> dict[str, str]:
    """Settings with a new bucket, and with keys."""
    name = f"ackbridge-{uuid.uuid4().hex}"
    place = {"LocationConstraint": "eu-central-1"}
    boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=place)
    return {**KEYS, "ACKBRIDGE_LARGE_PAYLOADS": f"s3://{name}"}


def objects_in(environ: dict[str, str]) -> dict[str, bytes]:
    """What the bucket has, by key."""
    client, name = boto3.client("s3"), environ["ACKBRIDGE_LARGE_PAYLOADS"].removeprefix("s3://")
    listed = client.list_objects_v2(Bucket=name).get("Contents", [])
    keys = [str(one["Key"]) for one in listed]
    return {key: client.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}


@pytest_asyncio.fixture(loop_scope="session")
async def stage_with_bucket(
    engine: EmbeddedEngine, bucket_environment: dict[str, str], tmp_path: Path
) -> AsyncIterator[Stage]:
    """A deployment that stores what is large in the bucket."""
    async with set_up(engine, tmp_path, environ=bucket_environment) as everything:
        yield everything


async def test_large_payloads_are_in_the_bucket(
    stage_with_bucket: Stage, bucket_environment: dict[str, str], tmp_path: Path
) -> None:
    """Encrypted, under the call's id; the history has a reference, replays, and can be decoded."""
    stage = stage_with_bucket
    request = stage.request("create_shipment")
    request = request.model_copy(update={"payload": {"destination": LARGE}})
    status = await stage.calls.start_and_wait(request, PATIENCE)
    assert status.outcome is not None
    assert status.outcome.status is OutcomeStatus.COMPLETED
    stored = objects_in(bucket_environment)
    assert any(f"/wi/{request.call_id}/" in key for key in stored)
    assert not any(b"planted" in content for content in stored.values())
    history = await stage.handle(request).fetch_history()
    assert sum(event.ByteSize() for event in history.events) < len(LARGE) // 2
    converter = stage.client.data_converter
    await Replayer(
        workflows=WORKFLOWS, workflow_runner=workflow_runner(converter), **client_options(converter)
    ).replay_workflow(history)

    (reference,) = history.events[0].workflow_execution_started_event_attributes.input.payloads
    auth, key = _reader(tmp_path)
    assert converter.payload_codec is not None
    app = build_codec_app(converter.payload_codec, auth, [], storage=converter.external_storage)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        client.headers["Authorization"] = f"Bearer {key}"
        decoded = await client.post("/decode", content=_document(reference))
        (payload,) = json_format.Parse(decoded.text, Payloads()).payloads
        assert json.loads(payload.data)["payload"]["destination"] == LARGE
        claimed = reference.data.replace(b"v0/", b"bodies/")
        other = Payload(metadata=reference.metadata, data=claimed)
        refused = await client.post("/decode", content=_document(other))
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE


def _reader(folder: Path) -> tuple[HttpAuth, str]:
    expires = datetime.now(UTC) + timedelta(days=1)
    key, entry = new_api_key("ui", "the ui", frozenset({Role.READ}), expires)
    write_api_keys(folder / "keys.json", (entry,))
    return HttpAuth(AuthSettings(api_keys=folder / "keys.json"), utc_now), key


def _document(payload: Payload) -> str:
    return json_format.MessageToJson(Payloads(payloads=[payload]))


async def test_large_bodies_are_in_the_bucket(
    bucket_environment: dict[str, str], tmp_path: Path
) -> None:
    """Encrypted, by the same interface, and deleted with their call."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = _ledger(url, bucket_environment)
    ref = await ledger.bodies.store("acme.pay.1", "e-1", "text/plain", LARGE.encode())
    assert await ledger.bodies.store("acme.pay.1", "e-1", "text/plain", LARGE.encode()) == ref
    (stored,) = objects_in(bucket_environment).values()
    assert b"planted" not in stored
    assert b"planted" not in (tmp_path / "ledger.db").read_bytes()
    assert await ledger.bodies.read(ref.id) == LARGE.encode()
    assert await ledger.bodies.read("none") is None
    without = _ledger(url, KEYS)
    with pytest.raises(LedgerUnavailableError, match="ACKBRIDGE_LARGE_PAYLOADS is not set"):
        await without.bodies.read(ref.id)
    inside = await without.bodies.store("acme.pay.2", "e-1", "text/plain", b"in the database")
    assert await ledger.bodies.read(inside.id) == b"in the database"

    later, place = utc_now() + timedelta(days=1000), None
    while (page := await ledger.purge.page(Retention(), later, place)).place is not None:
        place = page.place
    assert await ledger.bodies.read(ref.id) is None
    assert objects_in(bucket_environment) == {}
    await ledger.close()
    await without.close()


def _ledger(url: str, environ: dict[str, str]) -> Ledger:
    encryption = load_encryption(environ)
    return Ledger.open(url, utc_now, encryption=encryption, objects=open_bucket(environ))


async def test_bucket_that_is_not_there(aws_environment: dict[str, str], tmp_path: Path) -> None:
    """The ledger is unavailable: the step is repeated."""
    environ = {"ACKBRIDGE_LARGE_PAYLOADS": "s3://no-such-bucket"}
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = _ledger(url, environ)
    with pytest.raises(LedgerUnavailableError, match="bucket no-such-bucket: put: NoSuchBucket"):
        await ledger.bodies.store("acme.pay.1", "e-1", "text/plain", b"x")
    await ledger.close()


async def test_store_that_does_not_answer(
    aws_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unavailable; the next request connects again."""
    bucket = S3Bucket("any")
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        with pytest.raises(ObjectStoreError, match="bucket any: get: EndpointConnectionError"):
            await bucket.get("v0/x")
    await bucket.aclose()
    with pytest.raises(ObjectStoreError, match="bucket any: put: NoSuchBucket"):
        await bucket.put("v0/x", b"x")
    await bucket.aclose()


async def test_no_other_bucket_is_read(bucket_environment: dict[str, str]) -> None:
    """Whatever a reference in a payload says."""
    bucket = open_bucket(bucket_environment)
    assert bucket is not None
    client = BucketClient(bucket)
    for name, key in (("other", "v0/x"), (bucket.name, "bodies/x")):
        with pytest.raises(ObjectStoreError, match="only payloads in"):
            await client.get_object(bucket=name, key=key)
    with pytest.raises(ObjectStoreError, match="there is no payload"):
        await client.get_object(bucket=bucket.name, key="v0/x")
    await bucket.aclose()


@pytest.mark.parametrize(
    ("rule", "calls", "complaint"),
    [
        ({"Prefix": "v0/", "Days": 30}, 90, r"payloads \(v0/\) after 30 d"),
        ({"Prefix": "", "Days": 30}, 90, r"payloads \(v0/\) after 30 d"),
        ({"Prefix": "bodies/", "Days": 80}, 90, r"bodies \(bodies/\) after 80 d"),
        ({"Prefix": "bodies/", "Days": 800}, 0, "kept for ever"),
        ({"Prefix": "v0/", "Days": 400}, 90, None),
        ({"Prefix": "logs/", "Days": 1}, 90, None),
        (None, 90, None),
    ],
)
async def test_retention_of_the_bucket(
    stage: Stage,
    bucket_environment: dict[str, str],
    rule: dict[str, Any] | None,
    calls: int,
    complaint: str | None,
) -> None:
    """A rule that deletes what ended calls still need is refused."""
    bucket = open_bucket(bucket_environment)
    assert isinstance(bucket, S3Bucket)
    if rule is not None:
        one = {
            "ID": "r",
            "Status": "Enabled",
            "Filter": {"Prefix": rule["Prefix"]},
            "Expiration": {"Days": rule["Days"]},
        }
        boto3.client("s3").put_bucket_lifecycle_configuration(
            Bucket=bucket.name, LifecycleConfiguration={"Rules": [one]}
        )
    retention = Retention(calls=timedelta(days=calls) if calls else KEEP_FOREVER)
    check = check_object_retention(stage.client, bucket, retention)
    if complaint is None:
        await check
    else:
        with pytest.raises(ConfigurationError, match=complaint):
            await check
    await bucket.aclose()


def test_settings(aws_environment: dict[str, str]) -> None:
    """They are refused by name."""
    with pytest.raises(ConfigurationError, match="LARGE_PAYLOADS: expected s3://bucket"):
        open_bucket({"ACKBRIDGE_LARGE_PAYLOADS": "/folder"})
    environ = {"ACKBRIDGE_LARGE_PAYLOADS": "s3://b", "ACKBRIDGE_LARGE_PAYLOADS_OVER": "64KB"}
    with pytest.raises(ConfigurationError, match="LARGE_PAYLOADS_OVER: expected a number"):
        load_data_converter(environ)
    converter = load_data_converter({**environ, "ACKBRIDGE_LARGE_PAYLOADS_OVER": "65536"})
    assert converter.external_storage is not None
    assert converter.external_storage.payload_size_threshold == 65536
    assert bucket_of(converter.external_storage) is not None
