"""Every scenario, in the order in which they are told."""

from .answers import ANSWERS
from .debts import DEBTS
from .messages import MESSAGES
from .modes import MODES
from .scenario import Scenario
from .silences import SILENCES
from .steering import STEERING

SCENARIOS: tuple[Scenario, ...] = (
    *ANSWERS,
    *MODES,
    *SILENCES,
    *MESSAGES,
    *DEBTS,
    *STEERING,
)

__all__ = ["SCENARIOS", "Scenario"]
