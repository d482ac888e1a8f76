"""What a user is told when nobody has written something better."""

from __future__ import annotations

from .calls import Notice

DEFAULT_NOTICES = {
    "delayed": Notice(
        kind="delayed",
        title="This takes longer than usual",
        message="We keep working on it and will confirm as soon as it is done.",
    ),
    "failed": Notice(
        kind="failed",
        title="This did not work",
        message="The service we depend on did not confirm your request.",
        alternative="Please try again later or choose another way.",
    ),
    "refused": Notice(
        kind="refused",
        title="This was not accepted",
        message="The service we depend on did not accept your request.",
        alternative="Please check what you entered or choose another way.",
    ),
    "cancelled": Notice(kind="cancelled", title="Cancelled", message="Your request was cancelled."),
}
"""By kind; an operation's own notices replace them one by one."""
