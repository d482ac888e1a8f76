"""The grammar of `callbacks`: how a provider calls back, and what its deliveries contain.

Docstrings become descriptions in the published JSON Schema, which editors show.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from ackbridge.contracts.edge import CidrNetwork
from ackbridge.contracts.limits import Name
from ackbridge.security.specs import VerifySpec

from .expressions import Expression
from .fields import FilePart, Headers, Positive, Query, StatusCode
from .templates import BodyTemplate, PathTemplate, Template

CallbackEncoding = Literal["json", "form", "xml", "query"]
"""How a delivery is written."""

CONTENT_TYPE_PATTERN: Final = r"^[\x21-\x7e][\x20-\x7e]*$"


class ReplyCodes(FilePart):
    """How callbacks are answered: HTTP status codes, and the text of an accepted one."""

    accepted: StatusCode = 200
    """The message is stored, or no operation waits for it."""
    duplicate: StatusCode = 200
    """A message with the same event key was received before."""
    unmatched: StatusCode = 202
    """The message is stored until its call is known."""
    forged: StatusCode = 401
    """The signature or the credentials are wrong."""
    unreadable: StatusCode = 400
    """The body cannot be read, or the event key is missing."""
    body: str | None = None
    """What a delivery is answered with that is accepted, a duplicate or unmatched, for providers
    that require a text, such as `[accepted]`. Left out: JSON with the status. Rejections always say
    why, in JSON."""
    content_type: str = Field(default="text/plain", pattern=CONTENT_TYPE_PATTERN)
    """The content type of `body`."""


def _parse_reply_body(written: Any) -> Template | BodyTemplate:
    # A text is a template here, and not one expression as in the body of a request.
    return Template.parse(written) if isinstance(written, str) else BodyTemplate.parse(written)


_ReplyBody = Annotated[
    Template | BodyTemplate,
    PlainValidator(_parse_reply_body),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array"}]}),
]


class HandshakeReply(FilePart):
    """What a handshake is answered with. Templates over the delivery's document."""

    status: StatusCode = 200
    content_type: str | None = Field(default=None, pattern=CONTENT_TYPE_PATTERN)
    """Left out: `text/plain` for a text, `application/json` for a mapping."""
    headers: Headers = Field(default_factory=dict)
    """Further headers of the reply, for instance one that echoes a header of the request."""
    body: _ReplyBody = Template.parse("")
    """A text with templates, such as `"{challenge}"`, or a mapping that is sent as JSON."""


class HandshakeRule(FilePart):
    """A delivery that is no event but a question: whether the address is ours."""

    when: Expression
    """True for a handshake, over the whole delivery: the fields of its body, `body`, `headers` and
    `query`."""
    unsigned: bool = False
    """Whether it is answered although nothing verifies it. Only for providers that send their
    handshake unsigned; anybody can send one then, and gets the reply."""
    reply: HandshakeReply = HandshakeReply()


class EventRule(FilePart):
    """An event that no call waits for. Needs either `notify` or `visit`."""

    when: Expression
    """True for such an event. The first rule that holds counts."""
    notify: Name | None = None
    """The subscriber that gets the event, as a signed notice of the type `event.<name>`."""
    object: Expression | None = None
    """What the event is about, such as `data.object.id`: events of the same object are delivered
    in the order in which they arrived, one after the other. Left out: in any order."""
    data: Expression | None = None
    """Which part of the event the subscriber gets; defaults to the body."""
    visit: Expression | None = None
    """Where the event contains a URL to send a GET request to, without credentials: a confirmation.
    Its host must be that of `base_url` or be listed in `hosts`."""

    @model_validator(mode="after")
    def _has_one_action(self) -> EventRule:
        if (self.notify is None) == (self.visit is None):
            raise ValueError("needs either notify or visit: what happens with the event")
        if self.visit is not None and not {"object", "data"}.isdisjoint(self.model_fields_set):
            raise ValueError("object and data are for notify")
        return self


class ListSpec(FilePart):
    """The provider's own list of events, read to catch up after callbacks were missed.

    Templates can read `since`, `until` (ISO 8601, UTC) and `page`: what `next` gave, null at first.
    """

    path: PathTemplate
    """As `request.path`."""
    query: Query = Field(default_factory=dict)
    """As `request.query`, for instance `{after: "{since}", cursor: "{page}"}`."""
    headers: Headers = Field(default_factory=dict)
    """As `request.headers`."""
    each: Expression
    """Where the answer contains the events, a list. Each is read as one event of a callback."""
    next: Expression | None = None
    """What leads to the next page: a value for `{page}`, or a URL or a path where no template reads
    `page`. Null, false or empty on the last page."""
    pages: int = Field(default=1000, ge=1, le=100_000)
    """The maximum number of pages of one catch-up."""
    overlap: Positive = Field(default="5m", validate_default=True)
    """How much earlier than the outage events are listed, because lists and clocks lag."""


class CallbackSpec(FilePart):
    """How the provider calls back, at `<public URL>/callbacks/<provider>`."""

    encoding: CallbackEncoding = "json"
    """How a delivery is written: `json`, `form`, `xml`, or `query`, in its query string, with GET
    or POST. Values of forms and queries are texts; a name that is there several times has a list.
    """
    verify: VerifySpec
    """How a callback is authenticated."""
    each: Expression | None = None
    """Where a delivery contains its events, a list or one object; an empty list is accepted. Each
    event is read as if it were the body, with its own event key; `delivery` is the whole body then.
    """
    event_key: Expression | None
    """What identifies an event: a text or a number, over the event's document. Two events with the
    same key are duplicates. Null only where every operation that is called back has `fetch`."""
    ignore: Expression | None = None
    """Events for which this is true are accepted and counted, and not kept. Over the event's
    document; they need no event key."""
    handshakes: tuple[HandshakeRule, ...] = ()
    """Deliveries that ask whether the address is ours; the first rule that holds counts."""
    events: dict[Name, EventRule] = Field(default_factory=dict)
    """Events that no call waits for, by name: what no operation classifies, and what arrives after
    its call has ended."""
    replies: ReplyCodes = ReplyCodes()
    max_bytes: int = Field(default=1024 * 1024, gt=0)
    """Larger bodies are refused with 413 without being read."""
    max_per_second: float | None = Field(default=None, gt=0)
    """How many genuine deliveries one source may send; further ones are answered 429."""
    sources: tuple[CidrNetwork, ...] = ()
    """The addresses that the provider sends from, such as `192.0.2.0/24`; others are refused with
    403, whatever they sign. Left out: any. Behind a proxy, set ACKBRIDGE_TRUSTED_PROXIES."""
    list: ListSpec | None = None
    """The provider's own list of events, to catch up."""
