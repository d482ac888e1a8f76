"""Authentication out, verification in, the secrets behind both, and keeping them from view."""

from .inbound import Verifier, build_verifier
from .oauth2 import TokenRefused
from .outbound import build_auth
from .redaction import Redactor
from .secrets import Secrets
from .signing import sign_notice
from .specs import (
    AuthSpec,
    BasicAuth,
    BasicVerify,
    BearerAuth,
    HeaderAuth,
    HeaderVerify,
    HmacVerify,
    OAuth2Auth,
    SecretRef,
    VerifySpec,
)

__all__ = [
    "AuthSpec",
    "BasicAuth",
    "BasicVerify",
    "BearerAuth",
    "HeaderAuth",
    "HeaderVerify",
    "HmacVerify",
    "OAuth2Auth",
    "Redactor",
    "SecretRef",
    "Secrets",
    "TokenRefused",
    "Verifier",
    "VerifySpec",
    "build_auth",
    "build_verifier",
    "sign_notice",
]
