"""Making up what a provider would say, from the expressions that read it."""

from .drafts import Kind, Path
from .solving import CannotSimulate, Shape, Wish, compose
from .wants import Want, exactly, false, marked, one_of, something, text, true

__all__ = [
    "CannotSimulate",
    "Kind",
    "Path",
    "Shape",
    "Want",
    "Wish",
    "compose",
    "exactly",
    "false",
    "marked",
    "one_of",
    "something",
    "text",
    "true",
]
