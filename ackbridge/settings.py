"""Our settings: `ACKBRIDGE_*` from the environment and `.env`, read by composition roots only.

The connection to Temporal is configured by `TEMPORAL_*`, see `temporalio.envconfig`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ackbridge.contracts.control import ENVIRONMENT_PATTERN
from ackbridge.contracts.edge import CidrNetwork, EdgeLimits, StreamSettings
from ackbridge.contracts.identity import AuthSettings
from ackbridge.contracts.purge import Retention
from ackbridge.contracts.wire import Duration

from .errors import ConfigurationError

WORKER_READY = "worker ready"
"""The line that `worker.py` prints when its workers poll."""

# Narrower than the engine's rule, so that a name needs no quoting in commands and logs.
_DEPLOYMENT = r"^[A-Za-z0-9][A-Za-z0-9_/-]*$"
_BUILD_ID = r"^[A-Za-z0-9][A-Za-z0-9_/.+-]*$"
_LONGEST = 255
"""Characters."""


def _split_list(written: object) -> object:
    return (
        [one for one in written.split(",") if one.strip()] if isinstance(written, str) else written
    )


Networks = Annotated[tuple[CidrNetwork, ...], NoDecode, BeforeValidator(_split_list)]
"""Separated by commas."""


LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda written: written.upper() if isinstance(written, str) else written),
]


class Settings(BaseSettings):
    """The settings of a deployment.

    Attributes:
        environment: selects the flags of integration files, such as `dev` or `prod`.
        flags: where flags come from: `control` (`ackbridge flag`), or `flagd`, which is configured
            by its own `FLAGD_*`.
        integrations: the folder of integration files; unset, those that ship with Ackbridge.
        ledger_url: `sqlite:///path` or `postgresql://user:password@host/database`.
        public_url: where providers reach the gateway; the base of callback URLs.
        secrets_root: the folder of relative `file:` references.
        encryption_keys: what encrypts data at rest, as `id=reference, id=reference`: the first key
            encrypts, all decrypt. References are `file:`, `env:` and `kms:`. Unset: nothing is
            encrypted.
        require_encrypted: refuse calls whose start is not encrypted.
        codec: serve the codec endpoint in the gateway; needs keys, and authentication (`auth`).
        codec_origins: of the Temporal UIs whose pages may use it, with commas between them.
        api: serve the calls API in the gateway, too; needs authentication (`auth`). `ackbridge api`
            serves it in a process of its own.
        data_converter: a team's own data converter of Temporal, `module:name`.
        egress_allow: networks that requests may go to besides public addresses, whatever a file
            says, such as `10.0.0.0/8, fd00::/8`.
        large_payloads: where large payloads and bodies are stored, `s3://bucket`; unset, in the
            engine and in the ledger.
        large_payloads_over: from how many bytes on payloads of the engine are.
        log_level: of our own logs.
        log_format: of workers, gateways, APIs and relays: `text`, or `json` with one object a line.
        signal_timeout: how long a callback waits for the engine before it is stored in the inbox.
        shutdown_within: how long running activities may take to finish on SIGTERM.
        metrics_host, metrics_port: where Prometheus scrapes the metrics of this process; no page
            without a port. Other telemetry is configured by OpenTelemetry's `OTEL_*`.
        retention: how long the ledger keeps ended calls and other rows, by
            `ACKBRIDGE_RETENTION_CALLS`, ...; zero is for ever.
        purge_every: the interval of purges; zero: only on command.
        deployment: the worker deployment; unset, workers are unversioned.
        auth: how HTTP clients authenticate, by `ACKBRIDGE_AUTH_ISSUER`, ...; unset, only health and
            callbacks are served.
        build_id: the version of the workers, such as a git revision; unset, that of the package.
        gateway: the bounds of the gateway's HTTP server, by `ACKBRIDGE_GATEWAY_CONNECTIONS`, ...
        streams: of events for pages, part of the calls API, by `ACKBRIDGE_STREAMS_SECRETS`, ...
        outbox_url: the database of a service's outbox, `sqlite:///path` or `postgresql://…`, for
            `ackbridge relay` and `ackbridge outbox`.
        outbox_keep: how long rows stay in the outbox after their calls were started.
        trusted_proxies: addresses and networks, separated by commas, whose `X-Forwarded-For` says
            where a callback comes from.
    """

    model_config = SettingsConfigDict(
        env_prefix="ACKBRIDGE_",
        env_file=".env",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="ignore",
        hide_input_in_errors=True,
    )

    environment: Annotated[str, Field(pattern=ENVIRONMENT_PATTERN, max_length=64)] = "dev"
    flags: Literal["control", "flagd"] = "control"
    integrations: Path | None = None
    ledger_url: str = Field(default="sqlite:///.ackbridge/ledger.db", repr=False)
    public_url: str = "http://127.0.0.1:8080"
    secrets_root: Path = Path()
    encryption_keys: str = ""
    require_encrypted: bool = False
    codec: bool = False
    codec_origins: str = ""
    api: bool = False
    data_converter: str = ""
    egress_allow: Networks = ()
    large_payloads: str = ""
    large_payloads_over: Annotated[int, Field(ge=0)] = 128 * 1024
    log_level: LogLevel = "INFO"
    log_format: Literal["text", "json"] = "text"
    signal_timeout: Duration = timedelta(seconds=2)
    shutdown_within: Duration = timedelta(seconds=20)
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    retention: Retention = Retention()
    auth: AuthSettings = AuthSettings()
    purge_every: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(days=1)
    deployment: Annotated[str, Field(pattern=_DEPLOYMENT, max_length=_LONGEST)] | None = None
    build_id: Annotated[str, Field(pattern=_BUILD_ID, max_length=_LONGEST)] | None = None
    gateway: EdgeLimits = EdgeLimits()
    streams: StreamSettings = StreamSettings()
    outbox_url: str = Field(default="", repr=False)
    outbox_keep: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(days=1)
    trusted_proxies: Networks = ()


def load_settings() -> Settings:
    """Read the settings; variables that are none of ours are reported on standard error, once.

    Raises:
        ConfigurationError: naming the variable.
    """
    for problem in unknown_settings(environment()):
        _warn_once(problem)
    try:
        return Settings()
    except ValidationError as error:
        problems = (
            f"{_variable(one['loc'])}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ConfigurationError("; ".join(problems)) from None


def _variable(location: tuple[int | str, ...]) -> str:
    return "_".join(["ACKBRIDGE", *(part.upper() for part in location if isinstance(part, str))])


def setting_names(model: type[BaseModel] = Settings, prefix: str = "ACKBRIDGE_") -> set[str]:
    """The variables that are read, such as `ACKBRIDGE_RETENTION_CALLS`."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        kind, variable = field.annotation, f"{prefix}{name.upper()}"
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= setting_names(kind, f"{variable}_")
        else:
            found.add(variable)
    return found


def unknown_settings(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each `ACKBRIDGE_*` that is not read; it may belong to another version."""
    # The nested ones can also be given as one JSON object.
    known = setting_names() | {f"ACKBRIDGE_{name.upper()}" for name in Settings.model_fields}
    problems = []
    for name in sorted(environ):
        if name.startswith("ACKBRIDGE_") and name not in known:
            # The prefix would make every two names similar.
            near = get_close_matches(name[10:], [one[10:] for one in known], n=1)
            hint = f" Did you mean ACKBRIDGE_{near[0]}?" if near else ""
            problems.append(f"{name} is not a setting, and is ignored.{hint}")
    return problems


@cache
def _warn_once(problem: str) -> None:
    print(f"ackbridge: {problem}", file=sys.stderr)


def environment() -> Mapping[str, str]:
    """The process environment over `.env`, for `${NAME}` and `env:NAME`."""
    from_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return {**from_file, **os.environ}


def app_folder() -> Path:
    """The folder of `worker.py` and `workflows/`: the checkout, else the copy in the wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    if (checkout / "worker.py").is_file() and (checkout / "workflows").is_dir():
        return checkout
    return package / "_app"


def integrations_folder(configured: Path | None) -> Path:
    """The folder of integration files: the configured one, or those that ship with Ackbridge."""
    return configured if configured is not None else app_folder() / "integrations"
