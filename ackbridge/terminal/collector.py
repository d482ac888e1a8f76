"""Python's garbage collector in processes that run until they are stopped."""

from __future__ import annotations

import gc
from typing import Final

NEW_OBJECTS: Final = 10_000
"""How many more objects than were freed have to be created before the youngest are looked at;
Python's own number makes a busy worker spend a tenth of its time on it."""


def collect_less() -> None:
    """Collect less often, and leave out what exists now; call it when everything is built.

    Modules, models and files live as long as the process. Nearly everything else is freed without
    the collector, by its reference count.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
