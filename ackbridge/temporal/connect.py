"""Connect to the engine, and register our search attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client, Interceptor
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfig
from temporalio.plugin import SimplePlugin
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from ackbridge.contracts import search_attributes
from ackbridge.errors import ConfigurationError, EngineUnavailableError
from ackbridge.telemetry.traces import plugins
from ackbridge.workarounds.data_converter import DATA_CONVERTER

from .rpc import RPC_TIMEOUT

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ConnectOptions(TypedDict):
    """The options that clients, workers and replayers must share."""

    data_converter: DataConverter
    plugins: list[SimplePlugin]


def client_options() -> ConnectOptions:
    """The options of every client, and so of its workers, and of every replayer."""
    return ConnectOptions(data_converter=DATA_CONVERTER, plugins=plugins())


async def connect(
    environ: Mapping[str, str], interceptors: Sequence[Interceptor] = (), *, lazy: bool = False
) -> Client:
    """Connect as `TEMPORAL_*` and Temporal's own configuration file say.

    Args:
        lazy: connect at the first request, for a process that is useful without the engine.

    Raises:
        ConfigurationError: those settings are not valid.
        EngineUnavailableError: no Temporal server answers.
    """
    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=dict(environ))
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"TEMPORAL_*: {error}") from None
    address = config.setdefault("target_host", "localhost:7233")
    try:
        return await Client.connect(
            **config,
            **client_options(),
            grpc_compression=_compression(address),
            interceptors=interceptors,
            lazy=lazy,
        )
    except RuntimeError as error:
        raise EngineUnavailableError(f"no Temporal server answers at {address}: {error}") from None


def _compression(address: str) -> GrpcCompression:
    # On this machine compression costs CPU and saves nothing.
    host = address.removeprefix("http://").rpartition(":")[0].strip("[]")
    return GrpcCompression.NONE if host in _LOOPBACK else GrpcCompression.GZIP


@dataclass(frozen=True)
class Indexing:
    """Whether calls can be indexed by our search attributes.

    Attributes:
        available: they are registered.
        advice: the command that registers them, when we lack the permission.
    """

    available: bool
    advice: str | None = None


async def register_search_attributes(client: Client) -> Indexing:
    """Register our search attributes, if we have the permission.

    Upserting one that is not registered blocks a workflow, so calls run without them otherwise.
    """
    operator = client.operator_service
    try:
        listed = await operator.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace), timeout=RPC_TIMEOUT
        )
        missing = [
            key for key in search_attributes.KEYS if key.name not in listed.custom_attributes
        ]
        if missing:
            await operator.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace,
                    search_attributes={
                        key.name: IndexedValueType.ValueType(key.indexed_value_type)
                        for key in missing
                    },
                ),
                timeout=RPC_TIMEOUT,
            )
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return Indexing(available=True)
        return Indexing(available=False, advice=_advice(client.namespace, error))
    return Indexing(available=True)


def _advice(namespace: str, error: RPCError) -> str:
    options = " ".join(
        f"--name {key.name} --type {key.indexed_value_type.name.title()}"
        for key in search_attributes.KEYS
    )
    return (
        f"search attributes could not be registered ({error.status.name}); calls run without them"
        f" until an administrator runs: temporal operator search-attribute create"
        f" --namespace {namespace} {options}"
    )
