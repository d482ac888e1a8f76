"""Connect to the engine; the timeout and the errors of its requests; our search attributes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypedDict

from temporalio.api.common.v1 import Header, Payloads, WorkflowExecution
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    SignalWorkflowExecutionRequest,
)
from temporalio.client import (
    Client,
    Interceptor,
    WithStartWorkflowOperation,
    WorkflowQueryFailedError,
)
from temporalio.common import SearchAttributeKey
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfig, ClientConfigProfile
from temporalio.plugin import SimplePlugin
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from ackbridge.contracts import search_attributes
from ackbridge.contracts.identity import Identity
from ackbridge.contracts.wire import Wire
from ackbridge.errors import (
    AckbridgeError,
    ConfigurationError,
    EngineUnavailableError,
    InvalidRequestError,
    NamespaceNotFoundError,
)
from ackbridge.security.identity import identity_of_certificate, identity_of_token
from ackbridge.telemetry.traces import plugins
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER

from .data_converter import load_data_converter

RPC_TIMEOUT: Final = timedelta(seconds=10)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ConnectOptions(TypedDict):
    """The options that clients, workers and replayers must share."""

    data_converter: DataConverter
    plugins: list[SimplePlugin]


def client_options(data_converter: DataConverter = DATA_CONVERTER) -> ConnectOptions:
    """The options of every client, and so of its workers, and of every replayer."""
    return ConnectOptions(data_converter=data_converter, plugins=plugins())


async def connect(
    environ: Mapping[str, str],
    interceptors: Sequence[Interceptor] = (),
    *,
    lazy: bool = False,
    identity: str | None = None,
    within: timedelta = RPC_TIMEOUT,
) -> Client:
    """Connect as `TEMPORAL_*` and Temporal's own configuration say; if `lazy`, when first used.

    Payloads are encrypted as `ACKBRIDGE_ENCRYPTION_KEYS` says.

    Args:
        identity: what the histories say about who sent a request; None: process and host.
        within: how long the server may take to answer.

    Raises:
        ConfigurationError: those settings are not valid, or the server expects others.
        EngineUnavailableError: no Temporal server answers.
    """
    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=dict(environ))
    except OSError as error:
        raise ConfigurationError(f"TEMPORAL_*: {error.filename}: {error.strerror}") from None
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"TEMPORAL_*: {error}") from None
    address = config.setdefault("target_host", "localhost:7233")
    # On this machine compression costs CPU and saves nothing.
    host = address.removeprefix("http://").rpartition(":")[0].strip("[]")
    compression = GrpcCompression.NONE if host in _LOOPBACK else GrpcCompression.GZIP
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await Client.connect(
                **config,
                **client_options(load_data_converter(environ)),
                grpc_compression=compression,
                interceptors=interceptors,
                lazy=lazy,
                identity=identity,
            )
    except TimeoutError:
        raise EngineUnavailableError(
            f"the Temporal server at {address} does not answer within"
            f" {within.total_seconds():g} s; it may be overloaded or suspended"
        ) from None
    except (RuntimeError, ValueError) as error:
        raise _connect_error(address, str(error)) from None


_CONNECT_ERRORS: Final = (
    ("InvalidContentType", "it does not speak TLS; unset TEMPORAL_TLS and TEMPORAL_API_KEY"),
    ("ertificate", "TLS: the certificates do not match; check TEMPORAL_TLS_*"),
    ("HandshakeFailure", "TLS: the handshake failed; check TEMPORAL_TLS_*"),
    ("InvalidInput", "TLS: a certificate or key cannot be read; check TEMPORAL_TLS_*"),
    ("frame with invalid size", "it is not a Temporal server, or it expects TEMPORAL_TLS=true"),
    ("FRAME_SIZE", "it is not a Temporal server, or it expects TEMPORAL_TLS=true"),
    ("UnexpectedEof", "it closed the connection; it may expect TEMPORAL_TLS=true"),
    ("broken pipe", "it closed the connection; it may expect TEMPORAL_TLS=true"),
    ("Unauthenticated", "it refuses the credentials; check TEMPORAL_API_KEY and TEMPORAL_TLS_*"),
    ("PermissionDenied", "it refuses the credentials; check TEMPORAL_API_KEY and TEMPORAL_TLS_*"),
)
"""What the SDK's errors contain, and what they mean; others mean that nothing answers."""


def _connect_error(address: str, text: str) -> AckbridgeError:
    """The SDK's error is the debug format of a Rust value; the first match says what it means."""
    for sign, meaning in _CONNECT_ERRORS:
        if sign in text:
            return ConfigurationError(f"the server at {address} cannot be used: {meaning}")
    if "dns error" in text:
        return EngineUnavailableError(
            f"no Temporal server answers at {address}: the name is unknown; check TEMPORAL_ADDRESS"
        )
    return EngineUnavailableError(
        f"no Temporal server answers at {address}; start one, or set TEMPORAL_ADDRESS"
    )


def engine_identity(environ: Mapping[str, str]) -> Identity | None:
    """Who this process is for the engine, by the credentials in `TEMPORAL_*`.

    The subject of the client certificate, or a claim of the API key; None: the engine does not
    authenticate its clients by either. Nobody who has no such credential can claim its name.

    Raises:
        ConfigurationError: those settings are not valid.
    """
    try:
        profile = ClientConfigProfile.load(override_env_vars=dict(environ))
        tls = profile.tls
        if tls is not None and tls.client_cert is not None and not tls.disabled:
            source = tls.client_cert
            content = source.read_bytes() if isinstance(source, Path) else source
            return identity_of_certificate(
                content.encode() if isinstance(content, str) else content
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"TEMPORAL_*: {error}") from None
    return identity_of_token(profile.api_key) if profile.api_key else None


@contextmanager
def rpc_errors(
    *, not_found: AckbridgeError | None = None, ended: AckbridgeError | None = None
) -> Iterator[None]:
    """Raise the `RPCError` of a request as one of our errors.

    Where `not_found` is given, it is raised when there is no such workflow, and `ended` (or else
    `not_found`) when it takes no signals because it has ended. A refused argument raises
    `InvalidRequestError`, an unknown namespace `NamespaceNotFoundError`; anything else
    `EngineUnavailableError`: the request may be repeated.
    """
    try:
        with first_connection():
            yield
    except RPCError as error:
        if is_namespace_missing(error):
            raise NamespaceNotFoundError(_missing_namespace(error)) from None
        known = ended if ended and "already completed" in error.message else not_found
        if error.status is RPCStatusCode.NOT_FOUND and known is not None:
            raise known from None
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            raise InvalidRequestError(error.message) from None
        raise EngineUnavailableError(_describe(error)) from None
    except WorkflowQueryFailedError as error:
        raise EngineUnavailableError(f"no worker could answer the query: {error}") from None


@contextmanager
def first_connection() -> Iterator[None]:
    """Raise `EngineUnavailableError` where a lazy client cannot connect: a bare `RuntimeError`."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Failed client connect"):
            raise
        raise EngineUnavailableError("the engine did not answer: the connection failed") from None


def _missing_namespace(error: RPCError) -> str:
    said = error.message.strip().removesuffix(".")
    return f"the Temporal server says: {said}; set TEMPORAL_NAMESPACE, or create it"


def is_namespace_missing(error: RPCError) -> bool:
    """Whether the server does not know the namespace, rather than a workflow in it."""
    return error.status is RPCStatusCode.NOT_FOUND and error.message.startswith("Namespace ")


def _describe(error: RPCError) -> str:
    if error.status in (RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED):
        return "the engine did not answer in time"
    message = error.message
    if "transport error" in message or "tcp connect error" in message:
        message = "the connection failed"
    return f"the engine did not answer ({error.status.name}): {message}"


async def require_namespace(client: Client) -> None:
    """Raise `NamespaceNotFoundError` where the server does not know the client's namespace."""
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        await client.workflow_service.describe_namespace(request, timeout=RPC_TIMEOUT)
    except RPCError as error:
        # Whoever may not describe it may work in it.
        if is_namespace_missing(error):
            raise NamespaceNotFoundError(_missing_namespace(error)) from None


async def register_search_attributes(client: Client) -> str | None:
    """Register our search attributes; without the permission, returns how they can be registered.

    Upserting one that is not registered blocks a workflow, so calls run without them then.
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
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            options = " ".join(
                f"--name {key.name} --type {_type_name(key)}" for key in search_attributes.KEYS
            )
            return (
                f"search attributes could not be registered ({error.status.name}); calls run"
                " without them until an administrator runs: temporal operator search-attribute"
                f" create --namespace {client.namespace} {options}"
            )
    return None


def _type_name(key: SearchAttributeKey[Any]) -> str:
    """As Temporal's command line spells it: `KeywordList`."""
    return key.indexed_value_type.name.title().replace("_", "")


def is_unregistered(error: RPCError) -> bool:
    """Whether a start failed only because our search attributes are not registered."""
    return error.status is RPCStatusCode.INVALID_ARGUMENT and any(
        key.name in error.message for key in search_attributes.KEYS
    )


async def retrieve_start(operation: WithStartWorkflowOperation[Any, Any]) -> None:
    """Retrieve the error of a failed start, which the operation reports a second time.

    Where the request could not be made, the SDK says nothing there.
    """
    with contextlib.suppress(Exception):
        async with asyncio.timeout(0):
            await operation.workflow_handle()


def as_plain(argument: Wire) -> dict[str, Any]:
    """JSON without default values, which older and newer workers read alike."""
    return argument.model_dump(mode="json", exclude_defaults=True)


async def signal_once(
    client: Client,
    call_id: str,
    name: str,
    argument: Mapping[str, Any],
    request_id: str,
    timeout: timedelta,  # noqa: ASYNC109 -- sent with the request
    header: Header | None = None,
) -> None:
    """Signal an open call; the engine drops a second signal to it with the same request id.

    The SDK's `WorkflowHandle.signal` has no request id, so the raw request is sent. After a timeout
    the signal may have arrived nevertheless. Raises `RPCError` NOT_FOUND without such an open call.
    """
    request = SignalWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=call_id),
        signal_name=name,
        input=Payloads(payloads=await client.data_converter.encode([argument])),
        identity=client.identity,
        request_id=request_id,
        header=header,
    )
    await client.workflow_service.signal_workflow_execution(request, timeout=timeout)
