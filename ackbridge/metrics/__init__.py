"""Metrics: what is counted and known anyway, told by OTLP and to Prometheus."""

from .facts import Facts, FactSource
from .instruments import Source
from .telling import Metrics, measured, telling

__all__ = ["FactSource", "Facts", "Metrics", "Source", "measured", "telling"]
