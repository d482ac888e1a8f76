"""Every scenario, in the order of the report."""

from .failures import FAILURES
from .messages import MESSAGES
from .operator_requests import OPERATOR_REQUESTS
from .responses import ACKNOWLEDGEMENTS, POLLED_AND_SYNC, RESPONSES
from .scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *RESPONSES,
    *POLLED_AND_SYNC,
    *FAILURES,
    *MESSAGES,
    *ACKNOWLEDGEMENTS,
    *OPERATOR_REQUESTS,
)
