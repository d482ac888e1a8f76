"""The simulated provider, for the demo, our tests and yours."""

from .behaviour import Behaviour, Rates
from .provider import create_provider

__all__ = ["Behaviour", "Rates", "create_provider"]
