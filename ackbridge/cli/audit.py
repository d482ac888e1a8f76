"""audit: the log of operators' requests, a chain of hashes in the ledger."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.audit import AuditProblem, AuditRow, ChainVerifier
from ackbridge.ledger.ledger import Ledger
from ackbridge.terminal import output

from .connections import with_ledger
from .options import Json, Limit

COLUMNS = ("seq", "time (UTC)", "action", "subject", "by", "client", "origin", "reason")
MAX_PROBLEMS_SHOWN = 20


def list_audit(
    subject: Annotated[
        str | None, typer.Option(help="Only requests about this call, batch, provider or message.")
    ] = None,
    limit: Limit = 50,
    json_output: Json = False,
) -> None:
    """List the newest requests: who did what, when, why, and how it arrived.

    `by` is what the request says; `client` is what the engine has recorded about its sender, and
    in front of it, for an engine that authenticates its clients, who that was.
    """
    entries = [row.entry for row in with_ledger(lambda ledger: _newest(ledger, subject, limit))]
    if json_output:
        output.print_json([entry.model_dump(mode="json") for entry in entries])
        return
    cells = [
        (
            str(one.seq),
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            " ".join([one.action, *(f"{name}={value}" for name, value in one.details.items())]),
            one.subject,
            one.by,
            " / ".join(filter(None, (one.principal, one.client))),
            str(one.origin),
            one.reason,
        )
        for one in entries
    ]
    output.console.print(output.table(output.counted(len(entries), "request"), COLUMNS, cells))


def verify(
    against: Annotated[
        Path | None,
        typer.Option(help="An earlier export: its entries must still be there, unchanged."),
    ] = None,
    json_output: Json = False,
) -> int:
    """Check that no entry was changed, removed or inserted. Exit 1 if one was.

    Whoever can write to the database can compute a whole new chain, or remove the newest entries:
    keep an export elsewhere, and check `--against` it.
    """
    exported = _read_export(against) if against else {}
    verifier, problems = with_ledger(lambda ledger: _verify(ledger, exported))
    result = {
        "entries": verifier.seq,
        "hash": verifier.hash,
        "problems": [{"seq": one.seq, "reason": one.reason} for one in problems],
    }
    if json_output:
        output.print_json(result)
        return 1 if problems else 0
    entries = output.counted(verifier.seq, "entry", "entries")
    for problem in problems[:MAX_PROBLEMS_SHOWN]:
        output.say(f"entry {problem.seq}: {problem.reason}")
    if problems:
        output.say(f"{output.counted(len(problems), 'problem')} in {entries}")
        return 1
    output.say(f"{entries}, unchanged; the hash of the last one is {verifier.hash}")
    return 0


def export(
    after: Annotated[int, typer.Option(min=0, help="Only entries after this number.")] = 0,
) -> None:
    """Print all entries with their hashes, one JSON object a line, oldest first."""

    async def write(ledger: Ledger) -> None:
        async for row in _rows(ledger, after):
            line = {"seq": row.seq, "hash": row.hash, "entry": row.text}
            print(json.dumps(line), flush=False)

    with_ledger(write)


async def _newest(ledger: Ledger, subject: str | None, limit: int) -> list[AuditRow]:
    if subject is None:
        return await ledger.audit.newest(limit)
    return [row async for row in _rows(ledger, 0) if row.entry.subject == subject][-limit:]


async def _rows(ledger: Ledger, after: int) -> AsyncIterator[AuditRow]:
    while page := await ledger.audit.page(after):
        for row in page:
            yield row
        after = page[-1].seq


async def _verify(
    ledger: Ledger, exported: dict[int, str]
) -> tuple[ChainVerifier, list[AuditProblem]]:
    verifier = ChainVerifier()
    problems: list[AuditProblem] = []
    missing = dict(exported)
    async for row in _rows(ledger, 0):
        problems += verifier.check([row])
        if missing.pop(row.seq, row.hash) != row.hash:
            problems.append(AuditProblem(row.seq, "differs from the export"))
    problems += _missing(missing)
    return verifier, problems


def _missing(exported: dict[int, str]) -> Iterator[AuditProblem]:
    for seq in sorted(exported):
        yield AuditProblem(seq, "is in the export only")


def _read_export(path: Path) -> dict[int, str]:
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
        return {int(line["seq"]): str(line["hash"]) for line in lines}
    except OSError as error:
        raise InvalidInputError(f"--against: {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InvalidInputError(f"--against: {path}: is not an export of the audit log") from None
