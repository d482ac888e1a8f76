"""Functions of expressions besides JMESPath's own: digests, texts, times, decimal arithmetic.

Arithmetic is exact, in decimals: `multiply(19.99, 100)` is 1999. Numbers are also taken from texts,
as many APIs write amounts.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

from jmespath.functions import Functions, signature

from ackbridge.contracts.wire import read_json
from ackbridge.security.secrets import current_secret

from .wire_formats import read_xml

SECRET: Final = "secret"  # noqa: S105 -- the name of a function
"""Takes a reference such as `env:NAME`, and gives the secret."""

HIDING: Final = frozenset({"sha256", "hmac"})
"""Functions whose result does not contain their arguments."""

MAX_TEXT_LENGTH: Final = 4 * 1024 * 1024
"""Characters of the result of a function that repeats one of its arguments."""

_ARITHMETIC = Context(prec=50, rounding=ROUND_HALF_UP)

_NAMESPACES = {
    "dns": uuid.NAMESPACE_DNS,
    "url": uuid.NAMESPACE_URL,
    "oid": uuid.NAMESPACE_OID,
    "x500": uuid.NAMESPACE_X500,
}


class ExpressionFunctions(Functions):
    """All functions that expressions can use."""

    def call_function(self, function_name: str, resolved_args: Any) -> Any:
        """Call a function, with the defaults of arguments that are left out."""
        defaults = FUNCTIONS[function_name]["function"].__defaults__ or ()
        missing = len(FUNCTIONS[function_name]["signature"]) - len(resolved_args)
        if 0 < missing <= len(defaults):
            resolved_args = [*resolved_args, *defaults[-missing:]]
        return super().call_function(function_name, resolved_args)

    @signature({"types": ["string"]})
    def _func_secret(self, reference: str) -> str:
        return current_secret(reference)

    @signature({"types": ["string"]}, {"types": ["string"]})
    def _func_sha256(self, text: str, encoding: str = "hex") -> str:
        return _encoded(hashlib.sha256(text.encode()).digest(), encoding)

    @signature(
        {"types": ["string"]}, {"types": ["string"]}, {"types": ["string"]}, {"types": ["string"]}
    )
    def _func_hmac(
        self, key: str, text: str, algorithm: str = "sha256", encoding: str = "hex"
    ) -> str:
        digest = hmac.new(key.encode(), text.encode(), _algorithm(algorithm)).digest()
        return _encoded(digest, encoding)

    @signature({"types": ["string"]}, {"types": ["string"]})
    def _func_uuid5(self, name: str, namespace: str = "url") -> str:
        return str(uuid.uuid5(_NAMESPACES.get(namespace) or uuid.UUID(namespace), name))

    @signature({"types": ["string"]})
    def _func_base64(self, text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    @signature({"types": ["string"]})
    def _func_from_base64(self, text: str) -> str:
        padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
        return base64.b64decode(padded, validate=True).decode()

    @signature({"types": ["string"]})
    def _func_from_json(self, text: str) -> Any:
        return read_json(text.encode())

    @signature({"types": ["string"]})
    def _func_from_xml(self, text: str) -> Any:
        return read_xml(text.encode())

    @signature({"types": ["string"]})
    def _func_lower(self, text: str) -> str:
        return text.lower()

    @signature({"types": ["string"]})
    def _func_upper(self, text: str) -> str:
        return text.upper()

    @signature({"types": ["string"]})
    def _func_trim(self, text: str) -> str:
        return text.strip()

    @signature({"types": ["string"]}, {"types": ["string"]})
    def _func_split(self, text: str, separator: str) -> list[str]:
        return text.split(separator)

    @signature({"types": ["string"]}, {"types": ["string"]}, {"types": ["string"]})
    def _func_replace(self, text: str, old: str, new: str) -> str:
        _check_length(len(text) + text.count(old) * len(new))
        return text.replace(old, new)

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, texts: list[str]) -> str:
        _check_length(sum(map(len, texts)) + len(texts) * len(separator))
        return separator.join(texts)

    @signature({"types": ["string"]})
    def _func_to_unix(self, time: str) -> int | float:
        moment = datetime.fromisoformat(time)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return _number(Decimal(str(aware.timestamp())))

    @signature({"types": ["number", "string"]})
    def _func_from_unix(self, seconds: float | str) -> str:
        moment = datetime.fromtimestamp(float(_decimal(seconds)), UTC)
        return moment.isoformat().replace("+00:00", "Z")

    @signature({"types": ["number", "string"]}, {"types": ["number", "string"]})
    def _func_add(self, left: float | str, right: float | str) -> int | float:
        return _number(_ARITHMETIC.add(_decimal(left), _decimal(right)))

    @signature({"types": ["number", "string"]}, {"types": ["number", "string"]})
    def _func_subtract(self, left: float | str, right: float | str) -> int | float:
        return _number(_ARITHMETIC.subtract(_decimal(left), _decimal(right)))

    @signature({"types": ["number", "string"]}, {"types": ["number", "string"]})
    def _func_multiply(self, left: float | str, right: float | str) -> int | float:
        return _number(_ARITHMETIC.multiply(_decimal(left), _decimal(right)))

    @signature({"types": ["number", "string"]}, {"types": ["number", "string"]})
    def _func_divide(self, left: float | str, right: float | str) -> int | float:
        return _number(_ARITHMETIC.divide(_decimal(left), _decimal(right)))

    @signature({"types": ["number", "string"]}, {"types": ["number"]})
    def _func_round(self, value: float | str, places: int) -> int | float:
        return _number(_rounded(value, places))

    @signature({"types": ["number", "string"]}, {"types": ["number"]})
    def _func_decimal(self, value: float | str, places: int) -> str:
        return format(_rounded(value, places), "f")


FUNCTIONS: Mapping[str, Any] = ExpressionFunctions.FUNCTION_TABLE
"""By name, with the types of their arguments."""


def arity(name: str) -> tuple[int, int | None]:
    """How many arguments a function takes, at least and at most; None: any number."""
    function, signature = FUNCTIONS[name]["function"], FUNCTIONS[name]["signature"]
    is_variadic = bool(signature) and signature[-1].get("variadic", False)
    required = len(signature) - len(function.__defaults__ or ())
    return required, None if is_variadic else len(signature)


def _check_length(length: int) -> None:
    if length > MAX_TEXT_LENGTH:
        raise ValueError("too long")


def _algorithm(name: str) -> str:
    if name not in ("sha1", "sha256", "sha512"):
        raise ValueError(name)
    return name


def _encoded(digest: bytes, encoding: str) -> str:
    match encoding:
        case "hex":
            return digest.hex()
        case "base64":
            return base64.b64encode(digest).decode()
    raise ValueError(encoding)


def _decimal(value: float | str) -> Decimal:
    number = Decimal(value) if isinstance(value, str) else Decimal(str(value))
    if not number.is_finite() or abs(number.adjusted()) > _ARITHMETIC.prec:
        raise ValueError("out of range")
    return number


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _rounded(value: float | str, places: int) -> Decimal:
    if not isinstance(places, int) or not 0 <= places <= 20:
        raise ValueError("places")
    return _decimal(value).quantize(Decimal(1).scaleb(-places), context=_ARITHMETIC)
