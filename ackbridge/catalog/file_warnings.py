"""Find what is allowed in an integration file, and may still not be what its author wants."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ackbridge.contracts.limits import MAX_KEY_LENGTH
from ackbridge.contracts.plan import LatePolicy, OnFailure
from ackbridge.security.specs import HmacVerify

from .expressions import Expression
from .kept_fields import fields_read, is_credential
from .model import IDEMPOTENCY_HEADER, UNDETERMINED, UNKNOWN, Integration, Operation, Repeat
from .templates import Template, TextTemplate, reads_idempotency_key
from .yaml_document import FieldProblem

_LENGTHS = {"uuid5": 36, "sha256": 64, "hmac": 128}
"""The longest results of functions."""

_CYCLE_DIGITS = 4

_CLAIMS = re.compile(
    r"(?i)\b(?:has|have|was|were|is|are|did|do|could|will)(?:n.t| not| never)(?: been)?"
    r" (?:charged|debited|billed|booked|ordered|paid|sent|placed|go through|work|succeed)"
    r"|\b(?:failed|declined|unsuccessful|no charge|nothing was|try again|pay (?:with|by) another)\b"
    r"|\b(?:was|were|is|has been|have been) (?:successful|charged|booked|paid|completed)\b"
    r"|\bnicht (?:belastet|abgebucht|gebucht|bestellt|bezahlt|ausgeführt)\b"
    r"|\b(?:fehlgeschlagen|abgelehnt|erfolgreich|versuchen sie es erneut)\b"
    r"|\b(?:n.a pas été|a échoué|réessayez|no se ha|ha fallado|inténtelo de nuevo)\b"
)
"""Texts that say what happened, or send the user elsewhere."""

_DOUBTS = re.compile(
    r"(?i)\b(?:not (?:yet )?know|know(?: yet)? (?:whether|if)|whether|may|might|ob\b|wissen|si\b)"
)


def find_warnings(integration: Integration) -> Iterator[FieldProblem]:
    """Find what may go wrong with a valid file."""
    yield from _unsigned_callbacks(integration)
    yield from _unsigned_query(integration)
    yield from _hidden_fields(integration)
    yield from _unsigned_key(integration)
    if integration.hook is not None:
        message = "Python code, which is run and not checked; fields and expressions are better"
        yield _problem("hook", message)
    for name, operation in integration.operations.items():
        for problem in (
            *_unsafe_repetition(operation),
            *_assumed_key(operation),
            *_unverifiable_end(operation),
            *_long_keys(f"{integration.provider}.{name}.", operation),
            *_changed_mind(operation),
            *_claims(operation),
            *_literal_credentials(operation),
        ):
            yield FieldProblem(("operations", name, *problem.path), problem.message)


def _problem(field: str, message: str) -> FieldProblem:
    return FieldProblem(tuple(field.split(".")), message)


def _unsigned_callbacks(integration: Integration) -> Iterator[FieldProblem]:
    callbacks = integration.callbacks
    if callbacks is None or isinstance(callbacks.verify, HmacVerify):
        return
    waiting = [name for name, one in integration.operations.items() if _awaits_callback(one)]
    if waiting:
        message = (
            f"{callbacks.verify.type}: proves that the sender knows a secret, but no signature"
            f" covers the body, and a replay is not noticed; {', '.join(waiting)} acts on it. Use"
            " hmac where the provider signs, or response.fetch, which asks the provider itself"
        )
        yield _problem("callbacks.verify", message)


def _unsigned_query(integration: Integration) -> Iterator[FieldProblem]:
    callbacks = integration.callbacks
    if callbacks is None or not isinstance(callbacks.verify, HmacVerify):
        return
    if callbacks.encoding == "query":
        message = (
            "query, with a signature over the body, which is empty: who has seen one delivery can"
            " send any other. Verify by a secret header, or by basic authentication"
        )
        yield _problem("callbacks.encoding", message)


def _unsigned_key(integration: Integration) -> Iterator[FieldProblem]:
    if integration.has_unsigned_key:
        message = (
            "comes from what is not signed, and no time is signed either: who has seen a delivery"
            " could send it again under another key. Deliveries are told apart by their whole body"
            " instead; better use a field of the body"
        )
        yield _problem("callbacks.event_key", message)


def _hidden_fields(integration: Integration) -> Iterator[FieldProblem]:
    if integration.callbacks is None:
        return
    for part in ("headers", "query"):
        for name in sorted(filter(None, fields_read(integration, part))):
            if is_credential(name):
                message = (
                    f"{part}.{name}: looks like a credential; those are never kept, so expressions"
                    " over events do not see them"
                )
                yield _problem("callbacks", message)


def _awaits_callback(operation: Operation) -> bool:
    return operation.response.mode == "callback" and not operation.response.fetch


def _unsafe_repetition(operation: Operation) -> Iterator[FieldProblem]:
    request = operation.request
    if request.repeat is Repeat.ALWAYS and request.method != "GET" and not request.carries_key:
        message = (
            "always, without an idempotency key: when an answer is lost, the provider may do the"
            " work several times"
        )
        yield _problem("request.repeat", message)


def _assumed_key(operation: Operation) -> Iterator[FieldProblem]:
    request = operation.request
    is_stated = request.model_fields_set & {"idempotency", "idempotency_header", "repeat"}
    if request.method == "GET" or is_stated or any(map(reads_idempotency_key, request.expressions)):
        return
    message = (
        f"is not stated: when an answer is lost, the request is sent again under the same"
        f" {IDEMPOTENCY_HEADER}, as if the provider recognised it. If it does, write idempotency:"
        f" {{header: {IDEMPOTENCY_HEADER}}}; if not, idempotency: null and repeat: unless_reached"
    )
    yield _problem("request.idempotency", message)


def _unverifiable_end(operation: Operation) -> Iterator[FieldProblem]:
    parks = operation.on_failure is OnFailure.PARK or UNKNOWN in (operation.parked_codes or ())
    if operation.request.is_repeatable or operation.response.status is not None or parks:
        return
    message = (
        "fail, for a request that may not be repeated and without a status request: after a lost"
        " answer the call ends with unknown effect, and the provider cannot be asked. Add"
        " response.status, or `park: [unknown]`"
    )
    yield _problem("on_failure" if operation.park is None else "park", message)


def _long_keys(prefix: str, operation: Operation) -> Iterator[FieldProblem]:
    spec = operation.request.key
    if spec is None or spec.header is None or spec.max_length is None:
        return
    parts = spec.key.parts if spec.key else (Expression("call.idempotency_key"),)
    longest = len(prefix) + MAX_KEY_LENGTH + 1 + _CYCLE_DIGITS
    if operation.acknowledge is not None:
        longest += len(":success")
    length = sum(len(p) if isinstance(p, str) else _length(p, longest) for p in parts)
    if length > spec.max_length:
        message = (
            f"keys can have {length} characters, and the provider takes {spec.max_length}; shorten"
            ' them, for instance with key: "{sha256(call.idempotency_key)}" (64 characters) or'
            ' "{uuid5(call.idempotency_key)}" (36)'
        )
        yield _problem("request.idempotency.max_length", message)


def _length(expression: Expression, otherwise: int) -> int:
    return _LENGTHS.get(expression.function or "", otherwise)


def _changed_mind(operation: Operation) -> Iterator[FieldProblem]:
    """Acknowledgements that contradict what the provider was told before."""
    acknowledge = operation.acknowledge
    if acknowledge is None or acknowledge.failed is None or acknowledge.success is None:
        return
    if acknowledge.success == acknowledge.failed:
        message = "is the same as success: the provider cannot tell whether the response arrived"
        yield _problem("acknowledge.failed", message)
    elif not acknowledge.undoes and operation.response.late is LatePolicy.ACCEPT:
        message = (
            "false, with late: accept: a late response is acknowledged as a success after the same"
            " work was acknowledged as failed. Say late: hold, or undoes: true where `failed`"
            " calls the work off"
        )
        yield _problem("acknowledge.undoes", message)


def _literal_credentials(operation: Operation) -> Iterator[FieldProblem]:
    """Headers whose names say that they carry a secret, with a value that is in the file."""
    for name, template in operation.request.headers.items():
        if _CREDENTIAL_HEADER.search(name) and not template.expressions:
            message = (
                "has its value in the file; if that is a secret, write {secret('env:NAME')}, or"
                f" use auth: {{type: header, name: {name}, value: 'env:NAME'}}"
            )
            yield FieldProblem(("request", "headers", name), message)


_CREDENTIAL_HEADER = re.compile(r"(?i)(?:api-?key|secret|token|password|credential)s?$")


def _claims(operation: Operation) -> Iterator[FieldProblem]:
    """Texts that say what happened, where that is not known."""
    for kind in ("unknown", "delayed"):
        texts = getattr(operation.notices, kind)
        for language, text in texts.root.items() if texts is not None else ():
            for field in ("title", "message", "alternative"):
                template: TextTemplate | None = getattr(text, field)
                claim = _claim(template) if template is not None else None
                if claim is not None:
                    named = () if language == UNDETERMINED else (language,)
                    where = ("notices", kind, *named, field)
                    message = (
                        f"claims too much ({claim!r}): it is shown while nobody knows whether the"
                        " provider has done the work"
                    )
                    yield FieldProblem(where, message)


def _claim(template: Template) -> str | None:
    """What a text says that it cannot know."""
    literal = " ".join(part for part in template.parts if isinstance(part, str))
    for sentence in re.split(r"(?<=[.!?;:,])\s", literal):
        found = _CLAIMS.search(sentence)
        if found is not None and not _DOUBTS.search(sentence):
            return found[0]
    return None
