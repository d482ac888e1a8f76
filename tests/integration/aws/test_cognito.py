"""The calls API with tokens of an authorisation server that we did not write: moto's Cognito."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from temporalio.client import Client

from ackbridge.catalog.loading import load_catalog
from ackbridge.clock import utc_now
from ackbridge.ledger.database.migrate import migrate
from ackbridge.ledger.ledger import Ledger
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER
from tests.support.api import serve_api
from tests.support.stage import INTEGRATIONS, SECRETS, only_sandbox

pytestmark = pytest.mark.extended

BODY = {"provider": "sandbox", "operation": "create_order", "payload": {}}


def make_user(groups: list[str]) -> tuple[str, str, dict[str, str]]:
    """A pool with one user in these groups; returns the pool, the client and the user's tokens."""
    cognito: Any = boto3.client("cognito-idp")
    pool = cognito.create_user_pool(PoolName="people")["UserPool"]["Id"]
    flows = ["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]
    client = cognito.create_user_pool_client(
        UserPoolId=pool, ClientName="shop", ExplicitAuthFlows=flows
    )["UserPoolClient"]["ClientId"]
    who = {"UserPoolId": pool, "Username": "anna"}
    cognito.admin_create_user(**who)
    cognito.admin_set_user_password(**who, Password="P4ss-word", Permanent=True)
    for group in groups:
        cognito.create_group(UserPoolId=pool, GroupName=group)
        cognito.admin_add_user_to_group(**who, GroupName=group)
    parameters = {"USERNAME": "anna", "PASSWORD": "P4ss-word"}
    tokens = cognito.initiate_auth(
        ClientId=client, AuthFlow="USER_PASSWORD_AUTH", AuthParameters=parameters
    )["AuthenticationResult"]
    return pool, client, {"id": tokens["IdToken"], "access": tokens["AccessToken"]}


@pytest.mark.parametrize(("kind", "claim"), [("id", "aud"), ("access", "client_id")])
async def test_tokens_of_an_authorisation_server(
    aws_environment: dict[str, str], tmp_path: Path, kind: str, claim: str
) -> None:
    """Its keys, its claims; roles by group. Tokens of another pool or client are refused."""
    pool, audience, tokens = make_user(["start:sandbox", "unrelated"])
    _, _, foreign = make_user(["configure"])
    url = aws_environment["AWS_ENDPOINT_URL"]
    region = aws_environment["AWS_DEFAULT_REGION"]
    settings = {
        "issuer": f"https://cognito-idp.{region}.amazonaws.com/{pool}",
        "audience": audience,
        "audience_claim": claim,
        "jwks": f"{url}/{pool}/.well-known/jwks.json",
        "roles_claim": "cognito:groups",
    }
    migrate(f"sqlite:///{tmp_path}/ledger.db")
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", utc_now)
    catalog = only_sandbox(load_catalog(INTEGRATIONS, {**SECRETS, "SANDBOX_BASE_URL": url}))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    client = await Client.connect(address, lazy=True, data_converter=DATA_CONVERTER)

    with serve_api(tmp_path, client, ledger, catalog, tokens=settings) as api:

        async def post(token: str, provider: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
            body = {**BODY, "provider": provider}
            return await api.request("POST", "/calls", None, json=body, headers=headers)

        # Nothing listens where its engine should be: whoever may start calls gets a 503.
        assert (await post(tokens[kind], "sandbox")).status_code == 503
        assert (await post(tokens[kind], "stripe")).status_code == 403
        other = "access" if kind == "id" else "id"
        for token in (foreign[kind], tokens[other], tokens[kind][:-6] + "AAAAAA"):
            assert (await post(token, "sandbox")).status_code == 401
    await ledger.close()
