"""The demo's reconciliation: which checks fail for which records."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.loading import load_integration
from ackbridge.clock import utc_now
from ackbridge.contracts.calls import CallOutcome, OutcomeStatus, Timings
from ackbridge.demo.reconciliation import Reconciliation
from ackbridge.settings import integrations_folder

PLAIN = "sandbox.create_order.plain"
FAILED = "sandbox.create_order.failed"
SHIPMENT = "sandbox.create_shipment.one"


def _outcome(call_id: str, status: OutcomeStatus = OutcomeStatus.COMPLETED) -> CallOutcome:
    return CallOutcome(call_id=call_id, status=status, timings=Timings(started_at=utc_now()))


def _work(call_id: str, *verdicts: str) -> dict[str, Any]:
    return {
        "call_id": call_id,
        "acknowledged": verdicts[-1] if verdicts else None,
        "acknowledgements": [{"verdict": verdict} for verdict in verdicts],
    }


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The sandbox as it is shipped: orders are acknowledged, shipments are not."""
    sandbox = load_integration(integrations_folder(None) / "sandbox.yaml", {})
    return Catalog(MappingProxyType({"sandbox": sandbox}))


GOOD = Reconciliation(
    outcomes=[_outcome(PLAIN), _outcome(FAILED, OutcomeStatus.FAILED), _outcome(SHIPMENT)],
    plain={PLAIN},
    recorded=[PLAIN, SHIPMENT],
    owed=0,
    works=[_work(PLAIN, "success"), _work(FAILED, "failed"), _work(SHIPMENT)],
    duplicates=3,
    suppressed=3,
)


def test_consistent_records_match(catalog: Catalog) -> None:
    """Every completed call has one recorded response, and one work acknowledged as success."""
    assert [check.what for check in GOOD.checks(catalog) if not check.matches] == []


def test_confirmation_of_a_late_success_is_logged_too(catalog: Catalog) -> None:
    """The provider was asked about work that was called off."""
    works = [_work(PLAIN, "failed", "success"), *GOOD.works[1:]]
    late = replace(GOOD, works=works, suppressed=4)
    assert [check.what for check in late.checks(catalog) if not check.matches] == []


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        (replace(GOOD, recorded=[PLAIN]), {"recorded exactly once"}),
        (replace(GOOD, recorded=[PLAIN, FAILED]), {"recorded exactly once"}),
        (replace(GOOD, suppressed=2), {"duplicates and confirmations, logged as suppressed"}),
        (replace(GOOD, owed=1), {"acknowledgements still owed"}),
        (
            replace(GOOD, works=[*GOOD.works, _work(PLAIN, "success")]),
            {
                "done once by the provider (first part)",
                "acknowledged as success, one work for each completed call",
                "acknowledged as failed, every other work",
            },
        ),
        (
            replace(
                GOOD,
                works=[_work(PLAIN, "failed"), _work(FAILED, "success"), _work(SHIPMENT)],
            ),
            {"acknowledged as success, one work for each completed call"},
        ),
        (
            replace(GOOD, works=[*GOOD.works[:1], _work(FAILED), *GOOD.works[2:]]),
            {"acknowledged as failed, every other work"},
        ),
    ],
    ids=["lost", "of another", "suppressed", "owed", "twice", "swapped", "unacknowledged"],
)
def test_failed_checks_are_named(
    catalog: Catalog, records: Reconciliation, wrong: set[str]
) -> None:
    """A lost or repeated response, and a work with a wrong acknowledgement or none."""
    assert {check.what for check in records.checks(catalog) if not check.matches} == wrong
