"""The simulated provider, for the demo, our tests and yours."""

from .behaviour import Behaviour
from .courier import Persistence
from .provider import create_provider, simulate
from .rates import REALISTIC, Rates

__all__ = ["REALISTIC", "Behaviour", "Persistence", "Rates", "create_provider", "simulate"]
