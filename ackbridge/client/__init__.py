"""What a Python service imports to make and control calls.

from ackbridge.client import AckbridgeClient, CallRequest

async with AckbridgeClient.connect() as calls:
    status = await calls.start_and_wait(
        CallRequest(provider="stripe", operation="create_payment", key="invoice-4711", payload={}),
        timeout=timedelta(seconds=5),
    )
"""

from ackbridge.contracts import names, search_attributes
from ackbridge.contracts.batches import BatchProgress, BatchRequest, ParkedSelection
from ackbridge.contracts.calls import (
    CallOutcome,
    CallRequest,
    CallStatus,
    Notice,
    OutcomeStatus,
    Stage,
)
from ackbridge.contracts.signals import AwaitOutcome, Cancel, ForceAck, Reprocess
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import (
    AckbridgeError,
    CallCancelledError,
    CallError,
    CallFailedError,
    CallNotFoundError,
    EngineUnavailableError,
    InvalidRequestError,
    KeyReusedError,
    UnavailableError,
)
from ackbridge.temporal.connect import RPC_TIMEOUT, connect

from .batches import BatchHandle, find_batch, list_batches, start_batch
from .calls import AckbridgeClient, Call, ListedCall
from .control import ControlHandle

# Names of earlier revisions; new code uses those on the right.
Batch = BatchHandle
EngineUnavailable = EngineUnavailableError
Invalid = InvalidInputError
read = parse_argument
ProviderControl = ControlHandle
search = search_attributes

__all__ = [
    "RPC_TIMEOUT",
    "AckbridgeClient",
    "AckbridgeError",
    "AwaitOutcome",
    "Batch",
    "BatchHandle",
    "BatchProgress",
    "BatchRequest",
    "Call",
    "CallCancelledError",
    "CallError",
    "CallFailedError",
    "CallNotFoundError",
    "CallOutcome",
    "CallRequest",
    "CallStatus",
    "Cancel",
    "ControlHandle",
    "EngineUnavailable",
    "EngineUnavailableError",
    "ForceAck",
    "Invalid",
    "InvalidInputError",
    "InvalidRequestError",
    "KeyReusedError",
    "ListedCall",
    "Notice",
    "OutcomeStatus",
    "ParkedSelection",
    "ProviderControl",
    "Reprocess",
    "Stage",
    "UnavailableError",
    "connect",
    "find_batch",
    "list_batches",
    "names",
    "read",
    "search",
    "search_attributes",
    "start_batch",
]
