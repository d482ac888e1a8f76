"""Which lanes there are: those of one group share processes and are started together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from .celery_lane import celery
from .dbos_lanes import dbos_on_postgresql, dbos_on_sqlite
from .engine_lanes import on_default_engine, on_tuned_engine, ours, ours_encrypted
from .lanes import Lane
from .restate_lane import restate
from .testbed import Ground

GROUPS: dict[str, Callable[[Ground], AbstractAsyncContextManager[list[Lane]]]] = {
    "ours": ours,
    "encrypted": ours_encrypted,
    "tuned": on_tuned_engine,
    "default": on_default_engine,
    "dbos-postgresql": dbos_on_postgresql,
    "dbos-postgresql-pinned": partial(
        dbos_on_postgresql, name="dbos-postgresql-pinned", pinned=True
    ),
    "dbos-sqlite": dbos_on_sqlite,
    "restate": restate,
    "celery": celery,
}
GROUPS_OF_LANES = {
    "ours": "ours",
    "bulk": "ours",
    "bulk-starts": "ours",
    "ours-limited": "ours",
    "ours-slow-receipt": "ours",
    "ours-encrypted": "encrypted",
    "floor": "tuned",
    "textbook": "tuned",
    "floor-default": "default",
    "textbook-default": "default",
    "dbos-postgresql": "dbos-postgresql",
    "dbos-postgresql-pinned": "dbos-postgresql-pinned",
    "dbos-sqlite": "dbos-sqlite",
    "restate": "restate",
    "celery": "celery",
}
"""The group of each lane, in the order of the report."""
MAKE_BENCH = (
    "ours",
    "bulk",
    "bulk-starts",
    "ours-limited",
    "ours-slow-receipt",
    "ours-encrypted",
    "floor",
    "textbook",
    "floor-default",
    "textbook-default",
    "dbos-postgresql",
    "restate",
    "celery",
)
"""What is measured when nothing else is asked for."""
