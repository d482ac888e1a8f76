"""The built-in texts of notices, and the choice of a language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from .calls import Notice


def best_language(wanted: str | None, known: Iterable[str]) -> str | None:
    """The closest of the known languages, by the lookup of RFC 4647.

    Args:
        wanted: a language tag: `de-CH-1996` finds `de-CH-1996`, else `de-CH`, else `de`.
        known: language tags, in any case.

    Returns:
        The known tag as it is written; None if none is close, or none is wanted.
    """
    by_tag = {tag.lower(): tag for tag in known}
    parts = wanted.lower().split("-") if wanted else []
    while parts:
        if found := by_tag.get("-".join(parts)):
            return found
        parts.pop()
    return None


DEFAULT_LANGUAGE: Final = "en"

_TEXTS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "en": {
        "delayed": (
            "This takes longer than usual",
            "We keep working on it and will confirm as soon as it is done.",
        ),
        "failed": (
            "This did not work",
            "The service we depend on did not confirm your request.",
            "Please try again later or choose another way.",
        ),
        "refused": (
            "This was not accepted",
            "The service we depend on did not accept your request.",
            "Please check what you entered or choose another way.",
        ),
        "cancelled": ("Cancelled", "Your request was cancelled."),
        "completed": ("Done", "Your request is confirmed."),
        "completed_late": ("Done, later than usual", "Your request is confirmed now."),
    },
    "de": {
        "delayed": (
            "Es dauert länger als sonst",
            "Wir bleiben dran und melden uns, sobald es erledigt ist.",
        ),
        "failed": (
            "Das hat nicht geklappt",
            "Der Dienst, auf den wir angewiesen sind, hat Ihre Anfrage nicht bestätigt.",
            "Bitte versuchen Sie es später noch einmal oder wählen Sie einen anderen Weg.",
        ),
        "refused": (
            "Das wurde nicht angenommen",
            "Der Dienst, auf den wir angewiesen sind, hat Ihre Anfrage nicht angenommen.",
            "Bitte prüfen Sie Ihre Angaben oder wählen Sie einen anderen Weg.",
        ),
        "cancelled": ("Storniert", "Ihre Anfrage wurde storniert."),
        "completed": ("Erledigt", "Ihre Anfrage ist bestätigt."),
        "completed_late": ("Erledigt, später als sonst", "Ihre Anfrage ist jetzt bestätigt."),
    },
    "fr": {
        "delayed": (
            "Cela prend plus de temps que d'habitude",
            "Nous continuons et vous confirmerons dès que ce sera fait.",
        ),
        "failed": (
            "Cela n'a pas fonctionné",
            "Le service dont nous dépendons n'a pas confirmé votre demande.",
            "Veuillez réessayer plus tard ou choisir une autre voie.",
        ),
        "refused": (
            "Cela n'a pas été accepté",
            "Le service dont nous dépendons n'a pas accepté votre demande.",
            "Veuillez vérifier votre saisie ou choisir une autre voie.",
        ),
        "cancelled": ("Annulé", "Votre demande a été annulée."),
        "completed": ("C'est fait", "Votre demande est confirmée."),
        "completed_late": (
            "C'est fait, plus tard que d'habitude",
            "Votre demande est maintenant confirmée.",
        ),
    },
    "es": {
        "delayed": (
            "Esto tarda más de lo habitual",
            "Seguimos trabajando en ello y se lo confirmaremos en cuanto esté listo.",
        ),
        "failed": (
            "No ha funcionado",
            "El servicio del que dependemos no ha confirmado su solicitud.",
            "Inténtelo de nuevo más tarde o elija otra opción.",
        ),
        "refused": (
            "No se ha aceptado",
            "El servicio del que dependemos no ha aceptado su solicitud.",
            "Revise los datos introducidos o elija otra opción.",
        ),
        "cancelled": ("Cancelado", "Su solicitud se ha cancelado."),
        "completed": ("Hecho", "Su solicitud está confirmada."),
        "completed_late": (
            "Hecho, más tarde de lo habitual",
            "Su solicitud ya está confirmada.",
        ),
    },
}
"""By language and kind: title, message and, where there is one, alternative."""

CALLER_KINDS: Final = ("delayed", "failed", "refused", "cancelled")
"""Kinds of notices for callers."""

NOTICE_KINDS: Final = (*CALLER_KINDS, "completed", "completed_late")
"""Kinds of notices; `completed` and `completed_late` are for subscribers only."""


def _notice(kind: str, texts: tuple[str, ...]) -> Notice:
    title, message, *alternative = texts
    return Notice(
        kind=kind, title=title, message=message, alternative=alternative[0] if alternative else None
    )


_NOTICES: Final = {
    language: MappingProxyType({kind: _notice(kind, texts) for kind, texts in kinds.items()})
    for language, kinds in _TEXTS.items()
}

DEFAULT_NOTICES: Final = _NOTICES[DEFAULT_LANGUAGE]
"""The English notices by kind; an operation's own notices replace them one by one."""


def default_notices(language: str | None) -> Mapping[str, Notice]:
    """The built-in notices by kind, in the closest language, else in English."""
    return _NOTICES[best_language(language, _NOTICES) or DEFAULT_LANGUAGE]
