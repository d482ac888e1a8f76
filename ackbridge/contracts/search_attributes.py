"""Search attributes of a call, by which operators filter in the Temporal UI."""

from __future__ import annotations

from temporalio.common import SearchAttributeKey

PROVIDER = SearchAttributeKey.for_keyword("AckbridgeProvider")
OPERATION = SearchAttributeKey.for_keyword("AckbridgeOperation")
STAGE = SearchAttributeKey.for_keyword("AckbridgeStage")
PARKED_REASON = SearchAttributeKey.for_keyword("AckbridgeParkedReason")
DEADLINE = SearchAttributeKey.for_datetime("AckbridgeDeadline")
OWED = SearchAttributeKey.for_bool("AckbridgeOwed")
"""True while the provider has not accepted an acknowledgement."""

CALLS = SearchAttributeKey.for_keyword_list("AckbridgeCalls")
"""The calls of a `BulkCalls` workflow, each as `names.search_token`."""

KEYS = (PROVIDER, OPERATION, STAGE, PARKED_REASON, DEADLINE, OWED, CALLS)

IN_FLIGHT = "in_flight"
"""The stage set at start; upserted only off the happy path, because each upsert is an event."""
