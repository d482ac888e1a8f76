"""The command line against a whole local stack."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ackbridge.clock import utc_now
from ackbridge.contracts.quotas import QuotaReport, QuotaStatus, SecondCounts
from ackbridge.ledger.leases import LeaseRequest
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.stack import Stack
from tests.support.processes import run_command, started

pytestmark = pytest.mark.slow

ORDER = '{"amount": 5, "currency": "EUR"}'
WEBHOOK_WITHIN = 8
"""Seconds until localstripe has sent it, and the inbox was looked through."""
STUCK = '{"amount": 5, "currency": "EUR", "behaviour": {"stuck": true}}'


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Every process of a deployment, and localstripe."""
    with Stack(tmp_path_factory.mktemp("stack"), environ=os.environ) as running:
        yield running


def run(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ackbridge` with these arguments."""
    return run_command({**os.environ, **environ}, *arguments)


def new_key() -> str:
    """An unused key."""
    return uuid.uuid4().hex


@pytest.mark.extended
def test_payment_at_localstripe(stack: Stack) -> None:
    """Form-encoded request, bearer key, and a receipt that is final: completed and recorded.

    The signed webhook a second later says the same, and is nothing that an operator has to see.
    The demo's test makes payments, too.
    """
    payload = '{"amount": 1999, "currency": "eur"}'
    done = run(
        stack.environment,
        *("call", "stripe", "create_payment", "--key", new_key(), "--payload", payload),
        *("--wait", "30s", "--json"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)["outcome"]
    assert outcome["status"] == "completed"
    assert outcome["reference"].startswith("pi_")
    assert outcome["timings"]["answered_at"] == outcome["timings"]["receipt_at"]
    time.sleep(WEBHOOK_WITHIN)
    held = run(stack.environment, "held", "stripe", "--json")
    assert json.loads(held.stdout) == []


def test_declined_card_fails_with_the_providers_reason(stack: Stack) -> None:
    """The exit code is 1."""
    payload = '{"amount": 1999, "currency": "eur", "payment_method": "pm_card_chargeCustomerFail"}'
    done = run(
        stack.environment,
        *("call", "stripe", "create_payment", "--key", new_key(), "--payload", payload),
        *("--wait", "30s", "--json"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout)["outcome"]["notice"]["title"]


def test_call_status_and_list_as_tables(stack: Stack) -> None:
    """A completed call is printed, found again, and listed."""
    key = new_key()
    done = run(
        stack.environment, *("call", "sandbox", "create_order", "--key", key, "--payload", ORDER)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"sandbox.create_order.{key}" in done.stdout
    shown = run(stack.environment, "status", f"sandbox.create_order.{key}", "--watch")
    assert shown.returncode == 0
    assert "completed" in shown.stdout
    listed = run(stack.environment, "list", "--provider", "sandbox", "--json")
    assert listed.returncode == 0
    assert isinstance(json.loads(listed.stdout), list)


def test_pending_then_forced(stack: Stack) -> None:
    """A pending call exits with 3; an operator completes it."""
    key = new_key()
    call_id = f"sandbox.create_order.{key}"
    order = ("call", "sandbox", "create_order", "--key", key, "--payload", STUCK)
    pending = run(stack.environment, *order, "--wait", "1s")
    assert pending.returncode == 3, pending.stdout + pending.stderr
    assert "Still pending" in pending.stdout
    forced = run(
        stack.environment, "force-ack", call_id, "--reason", "seen", "--response", '{"id": 9}'
    )
    assert forced.returncode == 0, forced.stderr
    over = run(stack.environment, "status", call_id, "--watch", "--json")
    assert over.returncode == 0
    assert json.loads(over.stdout)["outcome"]["response"] == {"id": 9}


def test_cancel(stack: Stack) -> None:
    """A cancelled call exits with 1, and has who and why."""
    key = new_key()
    call_id = f"sandbox.create_order.{key}"
    run(
        stack.environment,
        *("call", "sandbox", "create_order", "--key", key, "--payload", STUCK, "--wait", "1s"),
    )
    done = run(stack.environment, "cancel", call_id, "--reason", "a mistake", "--by", "ann")
    assert done.returncode == 0, done.stderr
    over = run(stack.environment, "status", call_id, "--watch", "--json")
    assert over.returncode == 1
    assert json.loads(over.stdout)["outcome"]["cancelled"] == {"by": "ann", "reason": "a mistake"}


def test_owed_acknowledgement_is_listed(stack: Stack) -> None:
    """The provider does not accept it; the lists are printed as tables, too."""
    key = new_key()
    call_id = f"sandbox.create_order.{key}"
    behaviour = '{"acknowledgement_failures": 1000}'
    payload = f'{{"amount": 5, "currency": "EUR", "behaviour": {behaviour}}}'
    order = ("call", "sandbox", "create_order", "--key", key, "--payload", payload)
    done = run(stack.environment, *order, "--wait", "30s", "--json")
    assert json.loads(done.stdout)["outcome"]["effect"] == "done"
    until = time.monotonic() + 60
    while call_id not in (owed := run(stack.environment, "owed", "sandbox", "--json")).stdout:
        assert time.monotonic() < until, owed.stdout + owed.stderr
    (debt,) = [row for row in json.loads(owed.stdout) if row["call_id"] == call_id]
    assert (debt["kind"], debt["reason"]) == ("success", "the provider answered 503")
    while call_id not in (listed := run(stack.environment, "list", "--owed")).stdout:
        assert time.monotonic() < until, listed.stdout + listed.stderr
    assert " owed" in run(stack.environment, "owed").stdout
    assert " held" in run(stack.environment, "held").stdout


def test_flags_are_set_and_shown(stack: Stack) -> None:
    """The change, the flags, and their latest changes."""
    wide = {**stack.environment, "COLUMNS": "200"}
    who = ("--by", "ada", "--environment", "staging")
    done = run(wide, "flag", "stripe.create_payment", "12.5%", "--reason", "a [trial]", *who)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "create_payment in staging: on (integration file) → 12.5 %, by ada" in done.stdout
    shown = run(wide, "flag", "stripe").stdout
    assert "12.5 %" in shown
    assert shown.count("a [trial]") == 2
    assert run(wide, "flag", "stripe.create_payment", "default", "--reason", "over", *who)
    told = json.loads(run(wide, "flag", "stripe", "--json").stdout)
    assert "staging" not in told["snapshot"]["flags"]
    assert told["changes"][0]["after"] == "on (integration file)"


def test_breaker_is_held_and_released(stack: Stack) -> None:
    """Its state, by whom and why."""
    wide = {**stack.environment, "COLUMNS": "200"}
    who = ("--by", "ada")
    held = run(wide, "breaker", "stripe", "closed", "--reason", "a [drill]", *who)
    assert held.returncode == 0, held.stdout + held.stderr
    assert "stripe: breaker: closed → closed, held by ada, by ada" in held.stdout
    shown = run(wide, "breaker", "stripe").stdout
    assert "breaker of stripe: closed, held by ada since" in shown
    assert "UTC: a [drill]" in shown
    again = run(wide, "breaker", "stripe", "auto", "--reason", "over", *who, "--json")
    assert json.loads(again.stdout)["after"] == "closed"
    told = json.loads(run(wide, "breaker", "stripe", "--json").stdout)
    assert told["breaker"]["forced_by"] is None


def test_limit_is_set_and_reset(stack: Stack) -> None:
    """The change, and the limit in the output of `breaker`."""
    wide = {**stack.environment, "COLUMNS": "200"}
    who = ("--by", "ada")
    done = run(wide, "limit", "stripe", "2.5/s", "--reason", "a [plea]", *who)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stripe: limit: integration file → 2.5/s, by ada" in done.stdout
    until = time.monotonic() + 60
    while "sends: 2.5/s (limited to 2.5/s by ada: a [plea])" not in (
        shown := run(wide, "breaker", "stripe").stdout
    ):
        assert time.monotonic() < until, shown
    assert (
        "allowed: 2.5/s, limited to 2.5/s by ada: a [plea]" in run(wide, "limit", "stripe").stdout
    )
    over = run(wide, "limit", "stripe", "default", "--reason", "over", *who, "--json")
    change = json.loads(over.stdout)
    assert (change["before"], change["after"]) == ("2.5/s", "integration file")


async def test_limit_shows_what_a_provider_accepts(stack: Stack) -> None:
    """The rate of now and why, the requests of the last minute, and those that are in flight."""
    now = utc_now()
    why = "12 of 109 requests were answered 429"
    status = QuotaStatus(per_second=8.5, since=now, throttled_at=now, reason=why)
    second = SecondCounts(at=int(now.timestamp()), accepted=97, throttled=12)
    lease = LeaseRequest("stripe", "h", "stripe.pay.1", "", 2, None, now, timedelta(minutes=1))
    ledger = Ledger.open(stack.environment["ACKBRIDGE_LEDGER_URL"], utc_now)
    await ledger.stats.save_quotas("stripe", {"": status})
    await ledger.stats.store_quotas("w", [QuotaReport(provider="stripe", seconds=(second,))])
    await ledger.leases.acquire(lease)
    await ledger.close()
    shown = run(stack.environment, "limit", "stripe").stdout
    # The control may have decided another rate by now.
    row = r"all sends [\d.]+/s 97 12 1 \(\+0\) .*12 of 109 requests were answered 429"
    assert re.search(row, " ".join(shown.split())), shown
    assert max(map(len, shown.splitlines())) <= 80
    (quota,) = json.loads(run(stack.environment, "limit", "stripe", "--json").stdout)["quotas"]
    assert quota["now"] > 0
    assert (quota["throttled"], quota["in_flight"]) == (12, 1)


def test_batch_of_parked_calls(stack: Stack) -> None:
    """A dry run, the batch to its end, and the list of batches."""
    key = new_key()
    payload = '{"room": "attic", "nights": 2, "behaviour": {"receipt_failures": 5}}'
    booking = ("call", "sandbox", "create_booking", "--key", key, "--payload", payload)
    parked = run(stack.environment, *booking, "--wait", "60s", "--json")
    assert json.loads(parked.stdout)["stage"] == "parked"
    assert json.loads(parked.stdout)["notice"]["kind"] == "delayed"
    shown = json.loads(run(stack.environment, "queue", "sandbox", "--json").stdout)
    assert f"sandbox.create_booking.{key}" in [one["call"] for one in shown["calls"]]
    assert shown["queues"][0]["queue"] == "ackbridge.sandbox"
    narrow = {**stack.environment, "COLUMNS": "80"}
    assert " held back" in run(narrow, "queue", "sandbox").stdout
    which = ("reprocess", "sandbox", "--key", key)
    until = time.monotonic() + 60
    dry = run(stack.environment, *which, "--dry-run", "--json")
    while not json.loads(dry.stdout)["total"]:
        assert time.monotonic() < until, dry.stdout + dry.stderr
        dry = run(stack.environment, *which, "--dry-run", "--json")
    assert json.loads(dry.stdout)["kinds"][0]["reason"] == "no_receipt"
    assert "1 call would be reprocessed" in run(stack.environment, *which, "--dry-run").stdout
    begun = run(stack.environment, *which, "--code", "no_receipt", "--reason", "back", "--json")
    assert begun.returncode == 0, begun.stdout + begun.stderr
    (batch,) = json.loads(begun.stdout)
    assert batch["total"] == 1
    done = run(stack.environment, "batch", "status", batch["batch"], "--watch", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (batch,) = json.loads(done.stdout)
    assert (batch["state"], batch["counts"]["completed"]) == ("completed", 1)
    wide = {**stack.environment, "COLUMNS": "200"}
    assert batch["batch"] in run(wide, "batches", "sandbox").stdout
    late = run(stack.environment, "batch", "stop", batch["batch"], "--reason", "enough")
    assert late.returncode == 2
    assert "the batch has ended" in late.stderr
    later = run(stack.environment, *which, "--at", "02:00", "--json")
    (waiting,) = json.loads(later.stdout)
    assert waiting["state"] == "waiting"
    stopped = ("batch", "stop", waiting["batch"], "--reason", "not tonight", "--json")
    assert run(stack.environment, *stopped).returncode == 0


def test_purge(stack: Stack) -> None:
    """How much would be deleted, as a table, and how much was; nothing here is old."""
    shown = run(stack.environment, "purge", "--dry-run")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "would be deleted" in shown.stdout
    assert "dead notices" in shown.stdout
    done = run(stack.environment, "purge", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["calls"] == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("call", "sandbox", "create_order", "--key", "k", "--payload", "{"),
            "--payload: not JSON",
        ),
        (("call", "sandbox", "create_order"), "Missing option '--key'"),
        (("call", "Sandbox", "create_order", "--key", "k"), "provider: String should match"),
        (("call", "sandbox", "x", "--key", "k", "--wait", "soon"), "not a duration"),
        (("call", "sandbox", "create_order", "--key", "bad-1"), "payload: is not of type object"),
        (("call", "sandbox", "create_ordr", "--key", "bad-2"), "known operations: create_booking"),
        (("status", "sandbox.create_order.never"), "no such call"),
        (("batch", "status", "batch.sandbox:never"), "no such batch"),
        (("reprocess", "sandbox", "--rate", "0"), "rate: Input should be greater than 0"),
        (("reprocess", "sandbox", "--at", "night"), "--at: neither a time"),
        (("reprocess", "sandbox", "--code", "no_reciept"), "Did you mean 'no_receipt'?"),
        (("reprocess", "sandbox.create_order.o-1", "--dry-run"), "CALL_ID: it is one call"),
        (("flag", "sandbox", "off"), "--reason: required"),
        (("flag", "sandbox", "sometimes", "--reason", "r"), "must be on, off, internal, default"),
        (("flag", "sandbox", "101%", "--reason", "r"), "percentage: Input should be less than"),
        (("flag", "sandbox.create_ordr", "off", "--reason", "r"), "Did you mean 'create_order'?"),
        (("flag", "acme"), "acme: no control is running"),
        (("breaker", "sandbox", "open"), "--reason: required"),
        (("breaker", "sandbox", "ajar", "--reason", "r"), "ajar: must be one of closed, open,"),
        (("breaker", "acme", "open", "--reason", "r"), "acme: no control is running"),
        (("limit", "sandbox", "fast", "--reason", "r"), "fast: must be N/s"),
        (("limit", "sandbox", "inf/s", "--reason", "r"), "per_second: Input should be"),
    ],
)
def test_bad_input_exits_with_2_and_names_it(
    stack: Stack, arguments: tuple[str, ...], complaint: str
) -> None:
    """In one line, without a traceback."""
    done = run(stack.environment, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert complaint in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_no_server_exits_with_4() -> None:
    """A server that does not answer is not bad input."""
    nowhere = {"TEMPORAL_ADDRESS": "127.0.0.1:1"}
    done = run(nowhere, "call", "sandbox", "quote", "--key", "k")
    assert done.returncode == 4
    assert "127.0.0.1:1" in done.stderr


def test_check_and_schema(tmp_path: Path) -> None:
    """Mistakes are reported with file, line and field; the schema is JSON."""
    assert run({}, "check", "integrations").returncode == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text("provider: acme\nbase_url: nowhere\noperations: {}\n")
    done = run({"ACKBRIDGE_INTEGRATIONS": str(tmp_path)}, "check")
    assert done.returncode == 2
    assert f"{bad}:2:" in done.stdout
    assert "base_url" in done.stdout
    assert json.loads(run({}, "schema").stdout)["type"] == "object"


def test_check_warns_of_risks(tmp_path: Path) -> None:
    """On stderr, with a position; the file is valid all the same."""
    risky = tmp_path / "risky.yaml"
    risky.write_text(
        "provider: acme\nbase_url: http://acme.example\noperations:\n  order:\n"
        "    request: {path: /x, idempotency: null, repeat: always}\n    response: {mode: sync}\n"
    )
    done = run({}, "check", str(risky))
    assert done.returncode == 0
    assert done.stdout == "1 file is valid\n"
    expected = f"warning: {risky}:5:44: operations.order.request.repeat: always"
    assert done.stderr.startswith(expected)


def test_check_reads_examples(tmp_path: Path) -> None:
    """One line each; an example that means something else is a mistake of the file."""
    file = tmp_path / "acme.yaml"
    file.write_text(
        "provider: acme\nbase_url: http://acme.example\nexamples: one.json\noperations:\n"
        "  order: {request: {path: /x, idempotency: {}}, response: {mode: sync, success: done}}\n"
    )
    example = {
        "source": "made up",
        "operation": "order",
        "answer": {"status": 200, "body": {"done": True}},
        "means": {"kind": "success", "response": {"done": True}},
    }
    (tmp_path / "one.json").write_text(json.dumps(example))
    done = run({}, "check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert 'one\t200 to request\tsuccess\torder\t\t{"done": true}\n' in done.stdout
    assert json.loads(run({}, "check", "--json", str(file)).stdout) == []
    (row,) = json.loads(run({}, "check", "--json", "--examples", str(file)).stdout)
    assert (row["kind"], row["response"]) == ("success", {"done": True})
    file.write_text(file.read_text().replace("success: done", "success: completed"))
    done = run({}, "check", str(file))
    assert done.returncode == 2
    assert f"{tmp_path}/one.json:1:" in done.stdout
    assert "see response.success" in done.stdout
    (problem,) = json.loads(run({}, "check", "--json", str(file)).stdout)
    assert problem["file"] == f"{tmp_path}/one.json"


def test_starter_is_the_same_command() -> None:
    """`python starter.py` is `ackbridge`."""
    done = subprocess.run(
        [sys.executable, "starter.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "force-ack" in done.stdout


def test_worker_stops_gracefully(stack: Stack) -> None:
    """SIGTERM ends the worker with exit status 0, and another one takes over."""
    stack.restart("worker")
    done = run(
        stack.environment,
        *("call", "sandbox", "create_order", "--key", new_key(), "--payload", ORDER),
        *("--wait", "60s"),
    )
    assert done.returncode == 0


def test_providers_watch_ends_with_ctrl_c(stack: Stack) -> None:
    """It refreshes until the interrupt, and exits with 0."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ackbridge", "providers", "stripe", "--watch"]
    environ = {**os.environ, **stack.environment}
    with started(command, env=environ, stdout=theirs, stderr=theirs) as watching:
        os.close(theirs)
        seen = b""
        while seen.count(b"provider errors / min") < 2:
            seen += os.read(ours, 4096)
        watching.send_signal(signal.SIGINT)
        # A terminal that nobody reads holds its writer up.
        with contextlib.suppress(OSError):
            while os.read(ours, 4096):
                pass
        watching.wait()
    os.close(ours)
    assert watching.returncode == 0


def test_providers_shows_recent_calls(stack: Stack) -> None:
    """Within seconds of a call, with the state of the breaker."""
    # Of an operation that no other test here plays faults with.
    quote = ("call", "sandbox", "quote", "--key", new_key(), "--payload", ORDER)
    assert run(stack.environment, *quote, "--wait", "30s").returncode == 0

    until = time.monotonic() + 30
    scores: dict[str, Any] = {}
    while not scores.get("quote", {}).get("answer_rate"):
        assert time.monotonic() < until, scores
        seen = run(stack.environment, "providers", "sandbox", "--json")
        assert seen.returncode == 0, seen.stderr
        card = json.loads(seen.stdout)
        scores = {one["operation"]: one for one in card["operations"]}

    assert scores["quote"]["sends"] >= 1
    assert scores["quote"]["uptime"] == 1.0
    assert scores["quote"]["answer"]["p99"] > 0
    assert card["breaker"]["state"] == "closed"
    table = run(stack.environment, "providers")
    assert "sandbox" in table.stdout
    assert "not known" not in table.stdout
    unknown = run(stack.environment, "providers", "nobody")
    assert unknown.returncode == 2
    assert (
        "unknown provider 'nobody'; known providers: github, openai, sandbox, slack,"
        in unknown.stderr
    )
