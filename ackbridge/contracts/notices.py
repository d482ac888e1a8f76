"""The built-in texts of notices, and the choice of a language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from .calls import Effect, Notice, OutcomeCode


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
        "unknown": (
            "We do not know yet whether this worked",
            "The service we depend on did not confirm your request. It may still go through.",
        ),
        "unavailable": (
            "Temporarily unavailable",
            "The service we depend on is not available right now. Nothing was sent.",
            "Please try again later or choose another way.",
        ),
        "expired": (
            "This took too long",
            "Your request was not sent in time, and will not be sent any more.",
            "Please start again if you still want it.",
        ),
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
        "unknown": (
            "Wir wissen noch nicht, ob es geklappt hat",
            "Der Dienst, auf den wir angewiesen sind, hat Ihre Anfrage nicht bestätigt."
            " Sie kann noch ausgeführt werden.",
        ),
        "unavailable": (
            "Vorübergehend nicht verfügbar",
            "Der Dienst, auf den wir angewiesen sind, ist zurzeit nicht verfügbar."
            " Es wurde nichts gesendet.",
            "Bitte versuchen Sie es später noch einmal oder wählen Sie einen anderen Weg.",
        ),
        "expired": (
            "Das hat zu lange gedauert",
            "Ihre Anfrage wurde nicht rechtzeitig gesendet und wird nicht mehr gesendet.",
            "Bitte beginnen Sie noch einmal, wenn Sie es weiterhin möchten.",
        ),
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
        "unknown": (
            "Nous ne savons pas encore si cela a fonctionné",
            "Le service dont nous dépendons n'a pas confirmé votre demande."
            " Elle peut encore aboutir.",
        ),
        "unavailable": (
            "Temporairement indisponible",
            "Le service dont nous dépendons n'est pas disponible pour le moment."
            " Rien n'a été envoyé.",
            "Veuillez réessayer plus tard ou choisir une autre voie.",
        ),
        "expired": (
            "Cela a pris trop de temps",
            "Votre demande n'a pas été envoyée à temps et ne le sera plus.",
            "Veuillez recommencer si vous le souhaitez toujours.",
        ),
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
        "unknown": (
            "Todavía no sabemos si ha funcionado",
            "El servicio del que dependemos no ha confirmado su solicitud."
            " Aún puede llevarse a cabo.",
        ),
        "unavailable": (
            "No disponible temporalmente",
            "El servicio del que dependemos no está disponible en este momento."
            " No se ha enviado nada.",
            "Inténtelo de nuevo más tarde o elija otra opción.",
        ),
        "expired": (
            "Ha tardado demasiado",
            "Su solicitud no se envió a tiempo y ya no se enviará.",
            "Vuelva a empezar si todavía lo desea.",
        ),
        "completed": ("Hecho", "Su solicitud está confirmada."),
        "completed_late": (
            "Hecho, más tarde de lo habitual",
            "Su solicitud ya está confirmada.",
        ),
    },
}
"""By language and kind: title, message and, where there is one, alternative."""

CALLER_KINDS: Final = (
    "delayed",
    "failed",
    "refused",
    "cancelled",
    "unknown",
    "unavailable",
    "expired",
)
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


_KINDS_WITHOUT_EFFECT: Final = {
    OutcomeCode.REFUSED: "refused",
    OutcomeCode.CANCELLED: "cancelled",
    OutcomeCode.EXPIRED: "expired",
    OutcomeCode.NOT_SENT: "unavailable",
    OutcomeCode.SWITCHED_OFF: "unavailable",
    OutcomeCode.BREAKER_OPEN: "unavailable",
}


def notice_kind(code: OutcomeCode, effect: Effect) -> str:
    """The notice of a call that ended without the provider's success.

    `failed`, `refused` and their alternatives claim that nothing happened at the provider, so they
    are only for calls without effect.
    """
    if effect is not Effect.NONE:
        return "unknown"
    return _KINDS_WITHOUT_EFFECT.get(code, "failed")
