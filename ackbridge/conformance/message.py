"""A recorded message whose ids and times can be replaced, with everything else as recorded."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

from ackbridge.catalog.callbacks import CallbackEncoding
from ackbridge.catalog.encodings import write_xml
from ackbridge.catalog.examples import AnswerExample, DeliveryExample
from ackbridge.catalog.expressions import Expression
from ackbridge.catalog.hooks import Hook
from ackbridge.catalog.wire_formats import OBJECT_MEDIA, READERS, read_form
from ackbridge.contracts.wire import InvalidInputError, read_json

Path = tuple[str | int, ...]
"""Where a value is: `("body", "items", 0, "id")`."""

Read = Callable[["Message"], Any]
"""What an expression of the file reads from a message."""

LEAST_SEARCHED = 4
"""Characters of an id that is replaced within longer texts too, such as URLs, as a word."""

_NO_CODE = Hook()

_WORDS = re.compile(
    r"(https?://[^\s\"'<>]+"
    r"|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)?"
    r"|[A-Za-z0-9_](?:[\w.@%+~-]*[A-Za-z0-9_])?)",
    re.ASCII,
)
"""What may be replaced in a text that only a hook can read: URLs, times, and words such as ids."""

_NOT_SENT = frozenset(
    {"connection", "content-encoding", "content-length", "host", "transfer-encoding"}
)
"""Headers that describe the recorded transmission, and not the message."""


@dataclass
class Message:
    """An answer or a delivery.

    Attributes:
        status: of an answer; None for a delivery.
        headers: by lower-case name.
        body: parsed; a text where it is neither JSON nor a form. Where only a hook can read it, the
            parts of its text in turn: what is between words, and the words, which can be replaced.
        code: the hook that reads a body of the encoding `code`.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    encoding: Literal["json", "form", "xml", "query", "text", "code"] = "json"
    method: str = "POST"  # of a delivery
    code: Hook = _NO_CODE

    @classmethod
    def of_answer(cls, answer: AnswerExample, code: Hook = _NO_CODE) -> Message:
        """The message in an example.

        Args:
            code: the integration's, which may read bodies.
        """
        text = answer.raw.decode("utf-8", "replace")
        headers = _sent(answer.lower_headers)
        media = OBJECT_MEDIA.match(headers.get("content-type", ""))
        try:
            if code.read is not None:
                code.read_body(answer.raw, answer.lower_headers)
                return cls(answer.status, headers, {}, _words(answer.raw), "code", code=code)
            if media is not None and text.strip():
                encoding: Literal["xml", "form"] = "xml" if media[1].lower() == "xml" else "form"
                fields = READERS[encoding](answer.raw, headers.get("content-type", ""))
                return cls(answer.status, headers, {}, fields, encoding)
            body = read_json(answer.raw) if text.strip() else None
        except InvalidInputError:
            return cls(answer.status, headers, {}, text, "text")
        return cls(answer.status, headers, {}, body)

    @classmethod
    def of_delivery(
        cls, delivery: DeliveryExample, encoding: CallbackEncoding, code: Hook = _NO_CODE
    ) -> Message:
        """The message in an example of a delivery.

        Args:
            code: the integration's, which may read bodies.

        Raises:
            InvalidInputError: the body is not in this encoding.
        """
        headers = _sent(delivery.lower_headers)
        query = dict(parse_qsl(delivery.query, keep_blank_values=True))
        if code.read is not None:
            code.read_body(delivery.raw, delivery.lower_headers)
            words = _words(delivery.raw)
            return cls(None, headers, query, words, "code", delivery.method, code)
        body = parse_delivery(encoding, delivery.raw, delivery.query.encode())
        return cls(None, headers, query, body, encoding, delivery.method)

    @property
    def document(self) -> dict[str, Any]:
        """What expressions see."""
        body = self._value()
        fields = body if isinstance(body, dict) else {}
        known = {"body": body, "headers": self.headers, "query": self.query}
        return {**fields, **known, **({} if self.status is None else {"status": self.status})}

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        match self.encoding:
            case "json":
                return b"" if self.body is None else json.dumps(self.body).encode()
            case "form":
                return urlencode(self.body, doseq=True).encode()
            case "xml":
                return write_xml(self.body)
            case "query":
                return b""
            case "text":
                return str(self.body).encode()
            case "code":
                return "".join(self.body).encode("latin-1")

    def _value(self) -> Any:
        """The body as expressions see it; None where the hook cannot read it."""
        if self.encoding != "code":
            return self.body
        try:
            return self.code.read_body(self.content, self.headers)
        except InvalidInputError:
            return None

    @property
    def query_text(self) -> str:
        """The query as it is sent."""
        return urlencode(self.body if self.encoding == "query" else self.query, doseq=True)

    def copy(self) -> Message:
        """A message that can be changed without this one."""
        return copy.deepcopy(self)

    def values(self) -> Iterator[tuple[Path, str | int | float]]:
        """Every text and number of the message, with its path."""
        for part in ("headers", "query", "body"):
            if part == "body" and self.encoding == "code":
                yield from ((("body", at), self.body[at]) for at in range(1, len(self.body), 2))
            else:
                yield from _values(getattr(self, part), (part,))

    def get(self, path: Path) -> Any:
        """The value at a path."""
        value: Any = getattr(self, str(path[0]))
        for step in path[1:]:
            value = value[step]
        return value

    def set(self, path: Path, value: Any) -> None:
        """Replace the value at a path."""
        if len(path) == 1:
            setattr(self, str(path[0]), value)
        else:
            self.get(path[:-1])[path[-1]] = value


def parse_delivery(encoding: CallbackEncoding, body: bytes, query: bytes) -> Any:
    """The body of a delivery, as the gateway reads it.

    Raises:
        InvalidInputError: it is not in this encoding.
    """
    if encoding == "json":
        return read_json(body)
    return read_form(query) if encoding == "query" else READERS[encoding](body, "")


def keep_only(message: Message, each: Expression, number: int) -> None:
    """Leave one of the events of a delivery, the others out."""
    found = each.search(message.document)
    if not isinstance(found, list):
        return
    for path, value in list(_containers(message.body, ("body",))):
        if isinstance(value, list) and value == found:
            message.set(path, [found[number]])


def relocate(message: Message, move: Callable[[str], str]) -> None:
    """Change the URLs of a message."""
    for path, value in list(message.values()):
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            message.set(path, move(value))


def replace_id(message: Message, read: Read, new: str) -> bool:
    """Replace the id that an expression reads, wherever the message contains it.

    Returns:
        Whether the expression reads the new one now.
    """
    old = _as_text(read(message))
    if old is None or old == new:
        return old is not None
    sources = set(_sources(message, read))
    for path, value in list(message.values()):
        if str(value) == old:
            message.set(path, _like(value, new))
        elif isinstance(value, str) and path in sources:
            message.set(path, value.replace(old, new))
        else:
            message.set(path, _with_word(value, old, new))
    return _as_text(read(message)) == new


def renew(message: Message, read: Read, mark: str, is_kept: Callable[[Message], bool]) -> None:
    """Make what an expression reads unique, by values that contain `mark`.

    Args:
        is_kept: what must stay true: a value that decides what a message means is not replaced.
    """
    for path in list(_sources(message, read)):
        old = message.get(path)
        new = fresh(old, mark)
        before = dict(message.values())
        message.set(path, new)
        for other, value in before.items():
            if other == path:
                continue
            is_same = value == old and len(str(old)) >= LEAST_SEARCHED
            message.set(other, new if is_same else _with_word(value, str(old), str(new)))
        if read(message) is None or not is_kept(message):
            for other, value in before.items():
                message.set(other, value)


def replace_time(
    message: Message, read: Read, is_right: Callable[[Message], bool], candidates: Sequence[Any]
) -> bool:
    """Replace the time that an expression reads by the first candidate of its type that is right.

    Returns:
        Whether the time is right now.
    """
    for path in list(_sources(message, read)):
        old = message.get(path)
        for candidate in candidates:
            if type(candidate) is type(old):
                message.set(path, candidate)
                if is_right(message):
                    return True
        message.set(path, old)
    return is_right(message)


def moments(moment: datetime) -> list[Any]:
    """The ways in which providers write a moment."""
    seconds, utc = int(moment.timestamp()), moment.astimezone(UTC)
    return [
        *(utc.isoformat(), utc.isoformat().replace("+00:00", "Z")),
        *(seconds, seconds * 1000, float(seconds), str(seconds), str(seconds * 1000)),
    ]


def spans(seconds: int) -> list[Any]:
    """The ways in which providers write a time span."""
    return [seconds, float(seconds), f"{seconds}s", str(seconds), seconds * 1000]


def fresh(value: Any, mark: str) -> Any:
    """A value of the same form that no other message has: its end is `mark`, digits.

    >>> fresh("pi_3MtwBwLkdIwHu7ix28a3tqPa", "410000001")
    'pi_3MtwBwLkdIwHu7i410000001'
    >>> fresh("8f9de3fa-0d4e-4e0c-9d9b-6f3ed8f0b0a1", "410000001")
    '8f9de3fa-0d4e-4e0c-9d9b-6f3410000001'
    >>> fresh("e-1", "410000001"), fresh(7, "410000001")
    ('e-1410000001', 410000001)
    """
    if not isinstance(value, str):
        return type(value)(int(mark))
    if value.isdecimal() and len(value) <= len(mark):
        return mark
    if sum(map(str.isalnum, value)) <= len(mark) + 2:
        return value + mark
    digits, made = list(mark), list(value)
    for position in range(len(made) - 1, -1, -1):
        if digits and made[position].isalnum():
            made[position] = digits.pop()
    return "".join(made)


def _sources(message: Message, read: Read) -> Iterator[Path]:
    """Where the values are that an expression reads, and not only decides by."""
    before = read(message)
    for path, value in list(message.values()):
        message.set(path, _other(value))
        after = read(message)
        message.set(path, value)
        if after is not None and after != before:
            yield path


def _other(value: str | float) -> str | float:
    """Another value of the same form."""
    if not isinstance(value, str):
        return value + 1
    return f"{value}1" if value.isdecimal() else f"{value}x"


def _words(body: bytes) -> list[str]:
    return _WORDS.split(body.decode("latin-1"))


def _containers(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict | list):
        yield path, value
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _containers(inner, (*path, key))


def _values(value: Any, path: Path) -> Iterator[tuple[Path, str | int | float]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values(inner, (*path, key))
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield path, value


def _with_word(value: Any, old: str, new: str) -> Any:
    """A text in which a word is replaced that is long enough not to be there by chance."""
    if not isinstance(value, str) or len(old) < LEAST_SEARCHED or old not in value:
        return value
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(old)}(?![A-Za-z0-9])", lambda _: new, value)


def _like(old: Any, new: str) -> Any:
    return int(new) if isinstance(old, int) and new.isdecimal() else new


def _as_text(value: Any) -> str | None:
    is_id = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value) if is_id else None


def _sent(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _NOT_SENT}
