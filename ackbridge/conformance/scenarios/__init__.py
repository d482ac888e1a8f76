"""Every scenario, in the order in which they are told."""

from .messages import MESSAGES
from .modes import MODES
from .owed_acknowledgements import DEBTS
from .responses import ANSWERS
from .scenario import Scenario
from .steering import STEERING
from .timeouts import SILENCES

SCENARIOS: tuple[Scenario, ...] = (
    *ANSWERS,
    *MODES,
    *SILENCES,
    *MESSAGES,
    *DEBTS,
    *STEERING,
)

__all__ = ["SCENARIOS", "Scenario"]
