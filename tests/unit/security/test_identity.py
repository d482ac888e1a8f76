"""The operator's name comes from what authenticates the process to the engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import OctKey

from ackbridge.contracts.identity import Identity, IdentitySource
from ackbridge.errors import ConfigurationError
from ackbridge.security.identity import identity_of_certificate, identity_of_token
from ackbridge.temporal.connect import engine_identity


def certificate(common_name: str | None, *alternatives: x509.GeneralName) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    name, now = x509.Name(attributes), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def token(**claims: object) -> str:
    key = OctKey.import_key("a secret of thirty-two characters", {"kid": "1"})
    return jwt.encode({"alg": "HS256"}, claims, key)


def test_certificates() -> None:
    """The common name, or else what there is."""
    spiffe = x509.UniformResourceIdentifier("spiffe://example.com/ops")
    mail = x509.RFC822Name("anna@example.com")
    assert identity_of_certificate(certificate("anna", mail)) == Identity(
        name="anna", source=IdentitySource.CERTIFICATE
    )
    for alternatives, expected in (((spiffe,), spiffe.value), ((spiffe, mail), mail.value)):
        found = identity_of_certificate(certificate(None, *alternatives))
        assert found is not None
        assert found.label == f"{expected} (certificate)"
    assert identity_of_certificate(certificate(None)) is None


@pytest.mark.parametrize(
    ("credential", "name"),
    [
        (token(sub="7", email="anna@example.com"), "anna@example.com"),
        (token(sub="service-7"), "service-7"),
        (token(sub=7), None),
        ("an-opaque-key", None),
        ("a.b.c", None),
        ("..", None),
        ("a.W10.c", None),
        ("\u00e9.\u00e9.\u00e9", None),
    ],
)
def test_tokens(credential: str, name: str | None) -> None:
    """A claim of a token; other API keys name nobody."""
    found = identity_of_token(credential)
    assert (found and found.name) == name


def test_the_settings_of_the_connection(tmp_path: Path) -> None:
    """Temporal's own settings say which credential there is."""
    path = tmp_path / "client.pem"
    path.write_bytes(certificate("anna"))
    nothing = {"TEMPORAL_CONFIG_FILE": str(tmp_path / "none.toml")}
    assert engine_identity(nothing) is None
    by_certificate = engine_identity({**nothing, "TEMPORAL_TLS_CLIENT_CERT_PATH": str(path)})
    assert by_certificate is not None
    assert by_certificate.label == "anna (certificate)"
    by_token = engine_identity({**nothing, "TEMPORAL_API_KEY": token(sub="ben")})
    assert by_token is not None
    assert by_token.label == "ben (token)"
    path.write_text("not a certificate")
    with pytest.raises(ConfigurationError, match="TEMPORAL_"):
        engine_identity({**nothing, "TEMPORAL_TLS_CLIENT_CERT_PATH": str(path)})


def test_labels_are_bounded() -> None:
    """They are actors, which have at most 200 characters."""
    assert len(Identity(name="a" * 200, source=IdentitySource.TOKEN).label) == 200
    assert Identity(name="anna", source=IdentitySource.STATED).label == "anna"
