"""api-key: the keys with which HTTP clients authenticate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ackbridge.clock import utc_now
from ackbridge.contracts.identity import ApiKey, Role, is_grant
from ackbridge.contracts.wire import InvalidInputError, describe_validation_error
from ackbridge.errors import ConfigurationError, unknown_name
from ackbridge.security.http_auth import new_api_key, read_api_keys, write_api_keys
from ackbridge.settings import load_settings
from ackbridge.terminal import output

from .connections import record_if_possible
from .options import Json, parse_duration

KeyId = Annotated[str, typer.Argument(metavar="ID", help="Letters, digits and hyphens.")]


def list_keys(json_output: Json = False) -> None:
    """List keys: who uses them, their roles, and when they expire. The keys are not stored."""
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "roles": ", ".join(sorted(key.roles)),
            "expires_at": key.expires_at.isoformat(timespec="seconds"),
            "state": "valid" if key.is_valid(utc_now()) else "expired",
        }
        for key in read_api_keys(_path())
    ]
    columns = ("id", "name", "roles", "expires", "state")
    output.print_rows(rows, output.counted(len(rows), "API key"), columns, as_json=json_output)


def new(
    key_id: KeyId,
    name: Annotated[str, typer.Option(help="Who uses it.")],
    role: Annotated[
        list[str],
        typer.Option(
            metavar="ROLE[:PROVIDER]",
            help=f"What it may do: {', '.join(Role)}; of one provider or all. May be repeated.",
        ),
    ],
    within: Annotated[str, typer.Option(help="How long it is valid: `90d`.")] = "90d",
    json_output: Json = False,
) -> None:
    """Create a key, and print it. It is shown once: the file has its hash only."""
    for one in role:
        if not is_grant(one):
            raise InvalidInputError(
                f"--role: {unknown_name('role', one.partition(':')[0], map(str, Role))}"
            )
    path = _path()
    keys = read_api_keys(path) if path.exists() else ()
    if key_id in {key.id for key in keys}:
        raise InvalidInputError(f"ID: there is a key {key_id} already")
    expires_at = utc_now() + parse_duration("within", within)
    try:
        text, key = new_api_key(key_id, name, frozenset(role), expires_at)
    except ValidationError as error:
        raise InvalidInputError(describe_validation_error(error)) from None
    record_if_possible("new_api_key", key_id, name=name, roles=", ".join(sorted(key.roles)))
    write_api_keys(path, (*keys, key))
    if json_output:
        output.print_json({"id": key_id, "key": text, "expires_at": expires_at.isoformat()})
    else:
        print(text)


def remove(key_id: KeyId, json_output: Json = False) -> None:
    """Remove a key; gateways refuse it from the next request on."""
    keys = read_api_keys(_path())
    kept: tuple[ApiKey, ...] = tuple(key for key in keys if key.id != key_id)
    if len(kept) == len(keys):
        raise InvalidInputError(unknown_name("key", key_id, [key.id for key in keys]))
    record_if_possible("remove_api_key", key_id)
    write_api_keys(_path(), kept)
    if json_output:
        output.print_json({"id": key_id, "removed": True})
    else:
        output.say(f"key {key_id}: removed")


def _path() -> Path:
    path = load_settings().auth.api_keys
    if path is None:
        raise ConfigurationError("ACKBRIDGE_AUTH_API_KEYS: not set; it is the file of the keys")
    return path
