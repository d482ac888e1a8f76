"""Integration files: schema, loading, what goes out, and matching what comes in."""

from .calendars import Cron
from .catalog import Catalog, build_redactors, check_payload, next_batch
from .flags import configured_flags
from .inbound import (
    Match,
    candidates,
    classify,
    find_event_key,
    is_receipt,
    receipt_reference,
)
from .loading import SUBSCRIBERS, load_catalog, load_integration, load_subscriber
from .notices import Clean, render_notice
from .operation import Operation, Poll
from .outbound import (
    Outbound,
    Unaddressed,
    render_acknowledgement,
    render_health,
    render_request,
    render_status,
)
from .publishing import integration_json_schema, subscriber_json_schema
from .reprocessing import Reprocessing
from .schema import Callbacks, Integration
from .subscribers import Subscriber

__all__ = [
    "SUBSCRIBERS",
    "Callbacks",
    "Catalog",
    "Clean",
    "Cron",
    "Integration",
    "Match",
    "Operation",
    "Outbound",
    "Poll",
    "Reprocessing",
    "Subscriber",
    "Unaddressed",
    "build_redactors",
    "candidates",
    "check_payload",
    "classify",
    "configured_flags",
    "find_event_key",
    "integration_json_schema",
    "is_receipt",
    "load_catalog",
    "load_integration",
    "load_subscriber",
    "next_batch",
    "receipt_reference",
    "render_acknowledgement",
    "render_health",
    "render_notice",
    "render_request",
    "render_status",
    "subscriber_json_schema",
]
