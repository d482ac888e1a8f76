"""The demo: calls through a whole local stack, one for each way to end, and a reconciliation."""
