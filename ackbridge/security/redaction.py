"""Remove secrets from what providers send, before it is shown or stored.

The reasons of refusals and failures are shown to operators and stored in histories, and providers
quote what they were sent. Removed are

- the secrets that the provider's own `auth`, `callbacks.verify`, expressions and hook refer to, as
  they resolve now, and the OAuth 2 token in use, in every form that `KnownSecrets` knows;
- what looks like a credential: bearer and basic credentials, keys such as `sk_…`, `whsec_…` or
  `ghp_…`, JSON Web Tokens, private keys, passwords in URLs, `password=…`;
- what looks like a card number: 13 to 19 digits with a valid check digit, also with blanks, dashes
  and dots between them.

The data of answers, which callers get, lose only the former, where they are long enough.

Not removed are secrets that were rotated out, shortened, masked or encoded in another way, tokens
without a known name or pattern, and personal data such as names and addresses. Some harmless texts
are removed: one number in ten of such a length has a valid check digit.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence

import httpx

from .oauth2 import ClientCredentials
from .outbound import CombinedAuth
from .secrets import CALLBACK_TOKEN, REMOVED, KnownSecrets, Secrets
from .specs import AuthSpec, VerifySpec

_MAX_INPUT = 8192
"""Characters that are searched: a provider's text has no bound, and searching takes time."""

_MARGIN = 1024
"""Characters before that limit that may be the beginning of a secret."""

_PATTERNS = (
    re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,40}-----)?"),
    re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)*"),
    re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"),
    re.compile(r"\b(?:sk|rk|pk|key|token|whsec|gh[pousr]|github_pat)_[\w+/=-]{8,}"),
    re.compile(r"\b(?:sk|pk|xox[a-z])-[\w-]{8,}"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"(?<=_secret_)\w{8,}"),
    CALLBACK_TOKEN,
)
_CREDENTIAL = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+"
    r"|\b(?:[sr]k_(?:live|test)|whsec|gh[pousr]|github_pat)_[\w+/=-]{8,}"
    r"|\bsk-(?:proj-|ant-)?[\w-]{16,}"
    r"|\bxox[a-z]-[\w-]{8,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
)
_SCHEME = re.compile(r"(?i)\b(bearer|basic)(\s+)([\w.~+/=-]{6,})")
_NAMED = re.compile(
    r"(?i)\b([\w-]{0,40}(?:password|passwd|secret|token|api[_-]?key|authorization))"
    r"(\"?\s{0,2}[=:]\s{0,2}\"?)([^\s\"',;&]{4,})"
)
_DIGITS = re.compile(r"[0-9](?:[ \u00a0.-]?[0-9])+")
_DIGIT_GROUP = re.compile(r"[0-9]+")
_CARD_LENGTHS = range(13, 20)


def looks_like_secret(text: str) -> bool:
    """Whether a text has the form of a credential of a known kind, and of nothing else."""
    return _CREDENTIAL.search(text) is not None


class Redactor:
    """Removes secrets from the texts of one provider; without specs, by patterns only."""

    def __init__(
        self,
        auth: Sequence[AuthSpec] = (),
        verify: VerifySpec | None = None,
        secrets: Secrets | None = None,
        session: httpx.Auth | None = None,
        refs: Sequence[str] = (),
        found_later: Iterable[str] = (),
    ) -> None:
        """Remove the secrets of `auth`, `verify` and `refs`, and the token of `session`.

        Args:
            found_later: references that become known while the process runs.
        """
        credentials = [
            credential for spec in (*auth, verify) if spec for credential in spec.credentials()
        ]
        credentials += [("", ref) for ref in refs]
        used = session.session if isinstance(session, CombinedAuth) else session
        tokens = used.tokens if isinstance(used, ClientCredentials) else ()
        self.known = KnownSecrets(secrets, credentials, tokens, found_later)
        self.hidden: tuple[str, ...] = ()

    def hiding(self, values: Iterable[str]) -> Redactor:
        """This redactor, which removes these values as well."""
        redactor = copy.copy(self)
        redactor.hidden = tuple(sorted(set(values), key=len, reverse=True))
        return redactor

    def clean(self, text: str, max_length: int) -> str:
        """Return the beginning of a text without secrets, cut where no part of one is left."""
        is_cut = len(text) > _MAX_INPUT
        text = text[:_MAX_INPUT]
        for secret in (*self.hidden, *self.known.forms()):
            text = text.replace(secret, REMOVED)
        for pattern in _PATTERNS:
            text = pattern.sub(REMOVED, text)
        text = _SCHEME.sub(_without_value, text)
        text = _NAMED.sub(_without_value, text)
        text = _DIGITS.sub(_without_cards, text)
        return text[: max(0, min(max_length, len(text) - _MARGIN)) if is_cut else max_length]

    def clean_value(self, text: str) -> str:
        """Return the beginning of a text without secrets, as long as possible."""
        return self.clean(text, _MAX_INPUT)


def _without_value(found: re.Match[str]) -> str:
    """Keep the name of a credential; keep the value too if it is an ordinary word."""
    name, separator, value = found.groups()
    if "=" not in separator and _is_word(value):
        return found.group()
    return f"{name}{separator}{REMOVED}"


def _is_word(value: str) -> bool:
    word = value.strip(".:;!?()")
    return word.isalpha() and word[1:].islower() and len(word) < 24


def _without_cards(found: re.Match[str]) -> str:
    text = found.group()
    groups = list(_DIGIT_GROUP.finditer(text))
    cleaned, position, first = "", 0, 0
    while first < len(groups):
        last = _end_of_card(groups, first)
        if last is None:
            first += 1
            continue
        cleaned += text[position : groups[first].start()] + REMOVED
        position, first = groups[last].end(), last + 1
    return cleaned + text[position:]


def _end_of_card(groups: list[re.Match[str]], first: int) -> int | None:
    """The last group of the longest card number that begins with the group `first`."""
    digits, end = "", None
    for last in range(first, len(groups)):
        digits += groups[last].group()
        if len(digits) >= _CARD_LENGTHS.stop:
            break
        if len(digits) in _CARD_LENGTHS and _has_check_digit(digits):
            end = last
    return end


def _has_check_digit(digits: str) -> bool:
    """By the Luhn algorithm."""
    doubled = (int(d) * (2 if i % 2 else 1) for i, d in enumerate(reversed(digits)))
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0
