"""Functions of expressions besides JMESPath's own."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.expressions import Expression, ExpressionError, RequestExpression
from ackbridge.catalog.templates import Template, TextTemplate
from ackbridge.errors import SecretError
from ackbridge.security.secrets import Secrets

ADYEN_TIME = "2026-03-01T12:00:00Z"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sha256(@.a)", hashlib.sha256(b"x").hexdigest()),
        ("sha256('', 'base64')", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
        ("hmac('key', a)", hmac.new(b"key", b"x", "sha256").hexdigest()),
        ("hmac('key', a, 'sha512')", hmac.new(b"key", b"x", "sha512").hexdigest()),
        ("hmac('key', a, 'sha1', 'base64')", "KgDo6DQ9+GxMGIsmPuyjMa+jFUg="),
        ("uuid5('acme.order.k1:2')", str(uuid.uuid5(uuid.NAMESPACE_URL, "acme.order.k1:2"))),
        ("uuid5(a, 'dns')", str(uuid.uuid5(uuid.NAMESPACE_DNS, "x"))),
        (f"uuid5(a, '{uuid.NAMESPACE_OID}')", str(uuid.uuid5(uuid.NAMESPACE_OID, "x"))),
        ("base64('ä')", "w6Q="),
        ("from_base64('w6Q=')", "ä"),
        ("from_base64('w6Q')", "ä"),
        ("from_json('{\"a\": [1]}').a[0]", 1),
        ("from_xml('<a><b>1</b></a>').a.b", "1"),
        ("lower('ÄB')", "äb"),
        ("upper('äb')", "ÄB"),
        ("trim(' a ')", "a"),
        ("split('a,b', ',')[1]", "b"),
        ("replace('a-b-c', '-', '')", "abc"),
        (f"to_unix('{ADYEN_TIME}')", 1772366400),
        ("to_unix('2026-03-01T13:00:00.5+01:00')", 1772366400.5),
        ("from_unix(`1772366400`)", ADYEN_TIME),
        ("from_unix('1772366400')", ADYEN_TIME),
        ("multiply(price, `100`)", 1999),
        ("multiply('19.99', `100`)", 1999),
        ("add(`0.1`, `0.2`)", 0.3),
        ("subtract(`1`, '0.9')", 0.1),
        ("divide(`10`, `4`)", 2.5),
        ("round(`2.345`, `2`)", 2.35),
        ("round(`2.5`, `0`)", 3),
        ("decimal(`10`, `2`)", "10.00"),
        ("decimal(divide(cents, `100`), `2`)", "19.99"),
        ("multiply(`90071992547409931`, `10`)", 900719925474099310),
    ],
)
def test_functions(text: str, value: Any) -> None:
    """Each has the value, and the type, that a provider expects."""
    document = {"a": "x", "price": 19.99, "cents": 1999}
    found = Expression(text).evaluate(document)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        "hmac('k', a, 'md5')",
        "sha256(a, 'base32')",
        "uuid5(a, 'nowhere')",
        "from_base64('?')",
        "from_json('{')",
        "to_unix('soon')",
        "add('abc', `1`)",
        "add('NaN', `1`)",
        "add('1e999999', `1`)",
        "divide(`1`, `0`)",
        "round(`1`, `-1`)",
        "lower(gone)",
        "multiply(`true`, `2`)",
    ],
)
def test_unsuitable_values_are_errors_without_the_value(text: str) -> None:
    """In templates nothing is sent then; in conditions it is null."""
    expression = Expression(text)
    with pytest.raises(ExpressionError, match="wrong type"):
        expression.evaluate({"a": "x"})
    assert expression.search({"a": "x"}) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sha255(a)", "Did you mean 'sha256'"),
        ("sha256()", "takes 1 to 2"),
        ("hmac(a)", "takes 2 to 4"),
        ("replace(a, b)", "takes 3"),
        ("secret(a)", "as a literal"),
        ("secret('sk_live_1')", "as a literal"),
        ("secret('env:KEY')", "within hmac and sha256"),
        ("join('', ['x', secret('env:KEY')])", "within hmac and sha256"),
        ("base64(secret('env:KEY'))", "within hmac and sha256"),
    ],
)
def test_mistakes_are_refused(text: str, problem: str) -> None:
    """When the file is loaded; a pasted secret is not repeated."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        Expression(text)
    assert problem in str(caught.value)
    assert "sk_live" not in str(caught.value)


def test_secrets_are_parts_of_requests_only() -> None:
    """Notices are read by users, and values of conditions are stored."""
    template = Template.parse("key {secret('env:KEY')}")
    Secrets({"KEY": "s3cret"}, Path()).use_in_task()

    assert template.render({}) == "key s3cret"
    assert RequestExpression("secret('env:KEY')").secrets == ("env:KEY",)
    assert Expression("hmac(secret('env:KEY'), a)").evaluate({"a": "x"}) == (
        hmac.new(b"s3cret", b"x", "sha256").hexdigest()
    )
    with pytest.raises(ValueError, match="within hmac"):
        TextTemplate.parse("{secret('env:KEY')}")
    with pytest.raises(SecretError, match="env:GONE: is not set"):
        Template.parse("{secret('env:GONE')}").render({})
