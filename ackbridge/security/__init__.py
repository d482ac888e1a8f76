"""Authentication out, verification in, and the secrets behind both."""

from .inbound import Verifier, build_verifier
from .oauth2 import TokenRefused
from .outbound import build_auth
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
    "SecretRef",
    "Secrets",
    "TokenRefused",
    "Verifier",
    "VerifySpec",
    "build_auth",
    "build_verifier",
]
