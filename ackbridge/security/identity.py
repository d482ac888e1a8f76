"""The names in the credentials that authenticate a process to the engine.

The engine verifies them; here they are only read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from ackbridge.contracts.identity import Identity, IdentitySource
from ackbridge.contracts.limits import MAX_ACTOR_LENGTH

CLAIMS: Final = ("email", "preferred_username", "sub")
"""Of a token, in the order of preference."""


def identity_of_certificate(pem: bytes) -> Identity | None:
    """The common name of a client certificate, or else its first alternative name.

    Raises:
        ValueError: it is not a certificate in PEM.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    return _identity(next(_names(certificate), None), IdentitySource.CERTIFICATE)


def identity_of_token(token: str) -> Identity | None:
    """The subject of a JSON Web Token; None for an API key of another form."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    except (ValueError, RecursionError):
        return None
    if not isinstance(claims, dict):
        return None
    names = (claims.get(claim) for claim in CLAIMS)
    name = next((name for name in names if isinstance(name, str) and name), None)
    return _identity(name, IdentitySource.TOKEN)


def _names(certificate: x509.Certificate) -> Iterator[str]:
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        yield str(attribute.value)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return
    for kind in (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName):
        yield from extension.value.get_values_for_type(kind)


def _identity(name: str | None, source: IdentitySource) -> Identity | None:
    return Identity(name=name[:MAX_ACTOR_LENGTH], source=source) if name else None
