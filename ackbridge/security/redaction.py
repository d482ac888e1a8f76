"""Taking secrets out of what providers say, before people read it.

A provider's refusal or failure reason is shown to operators and kept in histories, and providers
do quote what they were sent. Removed are

- every secret that the provider's own `auth` and `callbacks.verify` refer to, as it resolves at
  this moment, and an OAuth 2 token that is in use: as it is, in base64 with its user name, and
  percent-encoded;
- what looks like a credential whoever's it is: bearer and basic credentials, keys such as `sk_…`,
  `whsec_…` or `ghp_…`, JSON Web Tokens, private keys, passwords in URLs, `password=…`;
- what looks like a card number: 13 to 19 digits with a valid check digit, blanks, dashes and dots
  between them included.

Not promised: a secret that has been rotated out, cut short, masked or encoded in another way; a
token without a name or a shape; personal data such as names and addresses. Some harmless texts
are lost: one number of that length in ten has a valid check digit.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from urllib.parse import quote

import httpx

from ackbridge.errors import SecretError

from .oauth2 import ClientCredentials
from .secrets import Secrets
from .specs import (
    AuthSpec,
    BasicAuth,
    BasicVerify,
    BearerAuth,
    HeaderAuth,
    HeaderVerify,
    HmacVerify,
    OAuth2Auth,
    VerifySpec,
)

REMOVED = "***"
"""What stands in the place of a secret."""

_READ = 8192
"""Characters of a text that are looked at: what providers say has no bound, and this costs time."""

_MARGIN = 1024
"""Characters before that end which may be the beginning of a secret."""

_WEBHOOK_PREFIX = "whsec_"
_SHAPES = (
    re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,40}-----)?"),
    re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)*"),
    re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"),
    re.compile(r"\b(?:sk|rk|pk|key|token|whsec|gh[pousr]|github_pat)_[\w+/=-]{8,}"),
    re.compile(r"\b(?:sk|pk|xox[a-z])-[\w-]{8,}"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"(?<=_secret_)\w{8,}"),
)
_SCHEME = re.compile(r"(?i)\b(bearer|basic)(\s+)([\w.~+/=-]{6,})")
_NAMED = re.compile(
    r"(?i)\b([\w-]{0,40}(?:password|passwd|secret|token|api[_-]?key|authorization))"
    r"(\"?\s{0,2}[=:]\s{0,2}\"?)([^\s\"',;&]{4,})"
)
_DIGITS = re.compile(r"[0-9](?:[ \u00a0.-]?[0-9])+")
_GROUP = re.compile(r"[0-9]+")
_CARD = range(13, 20)


class Redactor:
    """Cleans what one provider says.

    Without specs, it knows the shapes of secrets only.
    """

    def __init__(
        self,
        auth: AuthSpec | None = None,
        verify: VerifySpec | None = None,
        secrets: Secrets | None = None,
        session: httpx.Auth | None = None,
    ) -> None:
        """Take where the provider's secrets are; they are resolved anew for every text.

        Args:
            secrets: what the references of `auth` and `verify` stand for.
            session: what `build_auth` has made of `auth`; it may hold a token.
        """
        self._auth = auth
        self._verify = verify
        self._secrets = secrets
        self._session = session

    def clean(self, text: str, at_most: int) -> str:
        """The beginning of a text without secrets; it is cut off where no half of one is left."""
        text, rest = text[:_READ], text[_READ:]
        for secret in sorted(self._in_use(), key=len, reverse=True):
            text = text.replace(secret, REMOVED)
        for shape in _SHAPES:
            text = shape.sub(REMOVED, text)
        text = _SCHEME.sub(_without_value, text)
        text = _NAMED.sub(_without_value, text)
        text = _DIGITS.sub(_without_cards, text)
        return text[: max(0, min(at_most, len(text) - _MARGIN)) if rest else at_most]

    def clean_value(self, text: str) -> str:
        """The beginning of a text without secrets, as long as we look at."""
        return self.clean(text, _READ)

    def _in_use(self) -> set[str]:
        texts = {form for name, secret in self._resolved() for form in _forms(name, secret)}
        if isinstance(self._session, ClientCredentials) and self._session.token:
            texts.add(self._session.token)
        return texts

    def _resolved(self) -> Iterator[tuple[str, str]]:
        if self._secrets is None:
            return
        for name, ref in (*_sent(self._auth), *_received(self._verify)):
            try:
                yield self._secrets.text(name), self._secrets.resolve(ref)
            except SecretError:
                # What does not resolve was not sent either.
                continue


def _sent(spec: AuthSpec | None) -> list[tuple[str, str]]:
    """User name and reference of each secret."""
    match spec:
        case HeaderAuth():
            return [("", spec.value)]
        case BearerAuth():
            return [("", spec.token)]
        case BasicAuth():
            return [(spec.username, spec.password)]
        case OAuth2Auth():
            return [(spec.client_id, spec.client_secret)]
        case None:
            return []


def _received(spec: VerifySpec | None) -> list[tuple[str, str]]:
    match spec:
        case HmacVerify() | HeaderVerify():
            return [("", ref) for ref in spec.secrets]
        case BasicVerify():
            return [(spec.username, ref) for ref in spec.passwords]
        case None:
            return []


def _forms(name: str, secret: str) -> Iterator[str]:
    bare = secret.strip()
    yield bare
    yield quote(bare, safe="")
    if bare.removeprefix(_WEBHOOK_PREFIX):
        yield bare.removeprefix(_WEBHOOK_PREFIX)
    if name:
        yield base64.b64encode(f"{name}:{secret}".encode()).decode()


def _without_value(found: re.Match[str]) -> str:
    """Keep the name of a credential; and the whole where the value is but an ordinary word."""
    name, between, value = found.groups()
    is_assigned = "=" in between
    return f"{name}{between}{REMOVED}" if is_assigned or not _is_word(value) else found.group()


def _is_word(value: str) -> bool:
    word = value.strip(".:;!?()")
    return word.isalpha() and word[1:].islower() and len(word) < 24


def _without_cards(found: re.Match[str]) -> str:
    run = found.group()
    groups = list(_GROUP.finditer(run))
    kept, position, first = "", 0, 0
    while first < len(groups):
        last = _end_of_card(groups, first)
        if last is None:
            first += 1
            continue
        kept += run[position : groups[first].start()] + REMOVED
        position, first = groups[last].end(), last + 1
    return kept + run[position:]


def _end_of_card(groups: list[re.Match[str]], first: int) -> int | None:
    """The last group of the longest card number that begins with the group `first`."""
    digits, end = "", None
    for last in range(first, len(groups)):
        digits += groups[last].group()
        if len(digits) >= _CARD.stop:
            break
        if len(digits) in _CARD and _is_checked(digits):
            end = last
    return end


def _is_checked(digits: str) -> bool:
    """The check digit of card numbers (Luhn)."""
    doubled = (int(d) * (2 if i % 2 else 1) for i, d in enumerate(reversed(digits)))
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0
