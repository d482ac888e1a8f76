"""Alembic revisions of the ledger; run by `ackbridge.ledger.migrate`."""
