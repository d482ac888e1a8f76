"""The metrics of the engine's client: queues, slots, pollers, latencies of its requests."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

_WITHIN = 2.0
"""Seconds that one reading of them may take."""


class EngineMetrics(Collector):
    """Puts what the client tells on a port of its own on the same page as ours.

    The client counts in native code and serves them itself; through Python's own instruments the
    same would cost milliseconds of CPU for every call.
    """

    def __init__(self, port: int) -> None:
        """Take the client's port on 127.0.0.1."""
        self._url = f"http://127.0.0.1:{port}/metrics"

    def describe(self) -> list[Metric]:
        """Nothing: it is not there yet when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read them; without a client yet there are none."""
        try:
            with urllib.request.urlopen(self._url, timeout=_WITHIN) as answer:  # noqa: S310 -- our own port
                text = answer.read().decode()
        except OSError as error:
            log.debug("the engine's client tells no metrics: %s", error)
            return
        yield from text_string_to_metric_families(text)
