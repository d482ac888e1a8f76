"""flagd instead of provider control, where a deployment has it already."""

from __future__ import annotations

from openfeature.provider import FeatureProvider

from ackbridge.errors import ConfigurationError


def flagd() -> FeatureProvider:
    """The OpenFeature provider of flagd, as its own `FLAGD_*` configure it.

    Raises:
        ConfigurationError: it is not installed, or not configured.
    """
    try:
        # Not needed, and not installed, where provider control answers.
        from openfeature.contrib.provider.flagd import FlagdProvider
    except ImportError:
        raise ConfigurationError(
            "ACKBRIDGE_FLAGS: flagd is not installed: pip install 'ackbridge[flagd]'"
        ) from None
    try:
        return FlagdProvider()
    except (AttributeError, ValueError) as error:
        raise ConfigurationError(f"FLAGD_*: {error}") from None
