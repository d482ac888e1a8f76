"""What a Python service imports to make and control calls.

from ackbridge.client import AckbridgeClient, CallRequest

request = CallRequest(provider="shop", operation="order", key="invoice-4711", payload={})
async with AckbridgeClient.connect() as calls:
    status = await calls.start_and_wait(request, timeout=timedelta(seconds=5))
"""

from ackbridge.contracts import names as names
from ackbridge.contracts import search_attributes as search_attributes
from ackbridge.contracts.batches import BatchProgress as BatchProgress
from ackbridge.contracts.batches import BatchRequest as BatchRequest
from ackbridge.contracts.batches import ParkedSelection as ParkedSelection
from ackbridge.contracts.breaker import ForceBreaker as ForceBreaker
from ackbridge.contracts.breaker import SetLimit as SetLimit
from ackbridge.contracts.calls import CallOutcome as CallOutcome
from ackbridge.contracts.calls import CallRequest as CallRequest
from ackbridge.contracts.calls import CallStatus as CallStatus
from ackbridge.contracts.calls import Effect as Effect
from ackbridge.contracts.calls import Notice as Notice
from ackbridge.contracts.calls import OutcomeCode as OutcomeCode
from ackbridge.contracts.calls import OutcomeStatus as OutcomeStatus
from ackbridge.contracts.calls import Stage as Stage
from ackbridge.contracts.calls import Waiting as Waiting
from ackbridge.contracts.calls import WaitingFor as WaitingFor
from ackbridge.contracts.control import SetFlag as SetFlag
from ackbridge.contracts.signals import AwaitOutcome as AwaitOutcome
from ackbridge.contracts.signals import Cancel as Cancel
from ackbridge.contracts.signals import ForceAck as ForceAck
from ackbridge.contracts.signals import Reprocess as Reprocess
from ackbridge.contracts.signals import Resolve as Resolve
from ackbridge.contracts.signals import WriteOff as WriteOff
from ackbridge.contracts.wire import InvalidInputError as InvalidInputError
from ackbridge.contracts.wire import parse_argument as parse_argument
from ackbridge.errors import AckbridgeError as AckbridgeError
from ackbridge.errors import CallCancelledError as CallCancelledError
from ackbridge.errors import CallEndedError as CallEndedError
from ackbridge.errors import CallError as CallError
from ackbridge.errors import CallFailedError as CallFailedError
from ackbridge.errors import CallNotFoundError as CallNotFoundError
from ackbridge.errors import EngineUnavailableError as EngineUnavailableError
from ackbridge.errors import InvalidRequestError as InvalidRequestError
from ackbridge.errors import KeyReusedError as KeyReusedError
from ackbridge.errors import UnavailableError as UnavailableError
from ackbridge.temporal.connect import RPC_TIMEOUT as RPC_TIMEOUT
from ackbridge.temporal.connect import connect as connect

from .batches import BatchHandle as BatchHandle
from .bulk import BulkOutcome as BulkOutcome
from .calls import AckbridgeClient as AckbridgeClient
from .calls import Call as Call
from .control import ControlHandle as ControlHandle
from .listing import ListedCall as ListedCall
