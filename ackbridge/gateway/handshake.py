"""Answer a provider that asks whether the address is ours."""

from __future__ import annotations

import json

from ackbridge.catalog.callbacks import HandshakeReply
from ackbridge.catalog.templates import BodyTemplate, scalar_text
from ackbridge.contracts.wire import InvalidInputError

from .event import EventDocument


def render_handshake(
    reply: HandshakeReply, delivery: EventDocument
) -> tuple[str, str, dict[str, str]]:
    """The text of a reply, its content type and its further headers.

    Raises:
        ValueError: a template has no usable value.
    """
    is_json = isinstance(reply.body, BodyTemplate)
    value = reply.body.render(delivery)
    if value is None:
        raise InvalidInputError("handshakes: the delivery has no value for reply.body")
    content = json.dumps(value) if is_json else scalar_text(value, "reply.body")
    content_type = reply.content_type or ("application/json" if is_json else "text/plain")
    return content, content_type, _headers(reply, delivery)


def _headers(reply: HandshakeReply, delivery: EventDocument) -> dict[str, str]:
    headers = {}
    for name, template in reply.headers.items():
        value = template.render(delivery)
        text = None if value is None else scalar_text(value, name)
        if text is None or not text.isascii() or not text.isprintable():
            raise InvalidInputError(f"handshakes: the delivery has no value for header {name}")
        headers[name] = text
    return headers
