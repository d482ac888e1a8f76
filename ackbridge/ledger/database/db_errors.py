"""One kind of error for everything a database can fail with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import exc

from ackbridge.errors import LedgerUnavailableError


@asynccontextmanager
async def answering(within: timedelta, password: object = None) -> AsyncIterator[None]:
    """Wait so long for the database, and raise `LedgerUnavailableError` when it cannot serve us.

    Args:
        within: how long everything inside may take.
        password: never shown, whatever the driver says.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            yield
    except (TimeoutError, exc.TimeoutError):
        reason = f"the ledger did not answer within {within.total_seconds():g} s"
        raise LedgerUnavailableError(reason) from None
    except exc.DBAPIError as error:
        if isinstance(error, exc.DataError | exc.IntegrityError):
            raise
        raise unavailable(error, password) from None
    except OSError as error:
        raise LedgerUnavailableError(f"no connection to the ledger: {error.strerror}") from None


def unavailable(error: exc.DBAPIError, password: object) -> LedgerUnavailableError:
    """The driver's own words, one line of them, and never a password."""
    lines = str(error.orig).strip().splitlines()
    text = lines[0][:300] if lines else type(error.orig).__name__
    if password:
        text = text.replace(str(password), "***")
    if "no such table" in text or ("relation" in text and "does not exist" in text):
        text += " (it has not been migrated yet; every worker does so when it starts)"
    return LedgerUnavailableError(f"the ledger does not answer: {text}")
