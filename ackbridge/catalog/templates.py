"""Templates: texts with `{JMESPath}` expressions in them, and the bodies made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self, TypeAlias

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from .expressions import Expression, ExpressionError, RequestExpression

Context: TypeAlias = Mapping[str, Any]
"""What expressions can read: payload, metadata, call, callback_url, reference, response, reason."""

Clean: TypeAlias = Callable[[str], str]
"""Removes from a value what must not be shown, such as secrets."""

_QUOTES = "'\"`"

# Control characters, and those that change the direction of the text around them.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Template:
    """A text in which `{expression}` stands for a value; `{{` and `}}` are literal braces.

    Attributes:
        source: the text, as in the file.
        parts: literal texts and expressions, in order.
    """

    _expression: ClassVar[type[Expression]] = RequestExpression

    source: str
    parts: tuple[str | Expression, ...]

    @classmethod
    def parse(cls, source: str) -> Self:
        """Split a text into literals and compiled expressions.

        Raises:
            ValueError: unbalanced braces, or an invalid expression.
        """
        return cls(source, tuple(_parts(source, cls._expression)))

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """The expressions of the template, in order."""
        return tuple(part for part in self.parts if isinstance(part, Expression))

    def render(self, context: Context) -> Any:
        """The value: of any type for exactly one `{expression}`, else a text.

        None when any of the expressions is null.

        Raises:
            ExpressionError: an expression cannot be evaluated, or its value is a list or an object
                and would have to become part of a text.
        """
        values = [p if isinstance(p, str) else p.evaluate(context) for p in self.parts]
        if len(self.parts) == 1:
            return values[0]
        if any(value is None for value in values):
            return None
        texts = zip(self.parts, values, strict=True)
        return "".join(scalar_text(value, str(part)) for part, value in texts)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls.parse, cls._source_schema())

    @classmethod
    def _source_schema(cls) -> CoreSchema:
        return core_schema.str_schema(strict=True)


class PathTemplate(Template):
    """The path of a request; starts with `/`, and has no query and no fragment."""

    @classmethod
    def parse(cls, source: str) -> Self:
        """As `Template.parse`, and checks the literal parts of the path."""
        if not source.startswith("/"):
            raise ValueError("must start with /; the rest of the URL is base_url")
        template = super().parse(source)
        literal = "".join(part for part in template.parts if isinstance(part, str))
        if any(c in "?#" or not c.isascii() or not c.isprintable() or c == " " for c in literal):
            raise ValueError("must be printable ASCII without blanks, ? and #; use query")
        return template


class ScalarTemplate(Template):
    """The value of a header or of a query parameter; also a number or a boolean in the file."""

    @classmethod
    def parse(cls, source: str | float | bool) -> Self:
        """As `Template.parse`; numbers and booleans become literals."""
        return (
            super().parse(source) if isinstance(source, str) else cls("", (decimal_text(source),))
        )

    @classmethod
    def _source_schema(cls) -> CoreSchema:
        return core_schema.union_schema(
            [
                core_schema.str_schema(strict=True),
                core_schema.bool_schema(strict=True),
                core_schema.int_schema(strict=True),
                core_schema.float_schema(strict=True),
            ],
            custom_error_type="template",
            custom_error_message="must be a text, a number or a boolean",
        )


class TextTemplate(Template):
    """A text that users read, in a notice."""

    _expression: ClassVar[type[Expression]] = Expression

    def render_text(self, context: Context, clean: Clean | None = None) -> str:
        """The text. Null values are empty; values become one line without invisible characters.

        Args:
            clean: applied to each value.

        Raises:
            ExpressionError: as `Template.render`.
        """
        return "".join(
            part if isinstance(part, str) else _visible_text(part, context, clean)
            for part in self.parts
        )

    @classmethod
    def _source_schema(cls) -> CoreSchema:
        return core_schema.str_schema(strict=True, min_length=1)


@dataclass(frozen=True)
class BodyTemplate:
    """The body of a request: one expression for all of it, or a mapping or list of templates.

    Attributes:
        content: an Expression; or mappings and lists of Template, numbers, booleans and null.
    """

    content: Any

    @classmethod
    def parse(cls, source: Any) -> Self:
        """Compile a body as it is written in the file.

        Raises:
            ValueError: it is neither a text nor a mapping nor a list, or an invalid expression.
            ValidationError: with the path of each invalid template.
        """
        if isinstance(source, str):
            return cls(_parse_whole(source))
        if not isinstance(source, dict | list):
            raise ValueError("must be a mapping, or a text that is one JMESPath expression")  # noqa: TRY004 -- pydantic turns only ValueError into a validation error
        problems: list[InitErrorDetails] = []
        content = _parse_content(source, (), problems)
        if problems:
            raise ValidationError.from_exception_data("body", problems, hide_input=True)
        return cls(content)

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """All expressions of the body, in order."""
        return tuple(_expressions_in(self.content))

    @property
    def templates(self) -> tuple[Template, ...]:
        """All templates of the body, in order; none where it is one expression."""
        return tuple(_templates_in(self.content))

    def render(self, context: Context) -> Any:
        """The body's value; mappings are without their null values.

        Raises:
            ExpressionError: as `Template.render`; the text starts with the template's path.
        """
        if isinstance(self.content, Expression):
            return self.content.evaluate(context)
        return _render_content(self.content, context, "")

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        as_written = [
            core_schema.str_schema(),
            core_schema.dict_schema(core_schema.str_schema()),
            core_schema.list_schema(),
        ]
        return core_schema.no_info_plain_validator_function(
            cls.parse, json_schema_input_schema=core_schema.union_schema([*as_written])
        )


def scalar_text(value: Any, name: str) -> str:
    """A text, number or boolean, as in a URL, a header or a form.

    Args:
        name: what the value is called in an error.

    Raises:
        ExpressionError: it is a list or an object, or not valid Unicode.
    """
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise ExpressionError(f"{name} contains half of a surrogate pair")
        return value
    if isinstance(value, bool | int | float):
        return decimal_text(value)
    raise ExpressionError(f"{name} is not a text, a number or a boolean")


def decimal_text(value: float) -> str:
    """A number or boolean as in JSON, never with an exponent: `0.00001`, not `1e-05`."""
    text = json.dumps(value)
    return format(Decimal(text), "f") if "e" in text and isinstance(value, float) else text


def reads_idempotency_key(expression: Expression) -> bool:
    """Whether an expression reads `call.idempotency_key`."""
    return ("call", "idempotency_key") in expression.referenced_names()


def _templates_in(content: Any) -> Iterator[Template]:
    if isinstance(content, Template):
        yield content
    elif isinstance(content, dict | list):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from _templates_in(inner)


def _expressions_in(content: Any) -> Iterator[Expression]:
    if isinstance(content, Expression):
        yield content
    elif isinstance(content, Template):
        yield from content.expressions
    elif isinstance(content, dict | list):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from _expressions_in(inner)


def _visible_text(expression: Expression, context: Context, clean: Clean | None) -> str:
    value = expression.evaluate(context)
    if value is None:
        return ""
    text = _INVISIBLE.sub("", " ".join(scalar_text(value, expression.text).split()))
    return clean(text) if clean else text


def _parse_whole(source: str) -> Expression:
    try:
        return RequestExpression(source)
    except ValueError as error:
        if source.startswith("{") and source.endswith("}"):
            hint = "a body that is a text is one expression: write payload, not {payload}"
            raise ValueError(f"{error} ({hint})") from None
        raise


def _parse_content(
    source: Any, path: tuple[str | int, ...], problems: list[InitErrorDetails]
) -> Any:
    if isinstance(source, dict):
        return {key: _parse_content(value, (*path, key), problems) for key, value in source.items()}
    if isinstance(source, list):
        return [_parse_content(value, (*path, i), problems) for i, value in enumerate(source)]
    if not isinstance(source, str):
        return source
    try:
        return Template.parse(source)
    except ValueError as error:
        problem = PydanticCustomError("template", "{problem}", {"problem": str(error)})
        problems.append(InitErrorDetails(type=problem, loc=path, input=None))
        return None


def _render_content(content: Any, context: Context, path: str) -> Any:
    if isinstance(content, Template):
        try:
            return content.render(context)
        except ExpressionError as error:
            raise ExpressionError(f"{path.removeprefix('.')}: {error}") from None
    if isinstance(content, dict):
        rendered = (
            (key, _render_content(part, context, f"{path}.{key}")) for key, part in content.items()
        )
        return {key: value for key, value in rendered if value is not None}
    if isinstance(content, list):
        return [
            _render_content(part, context, f"{path}.{index}") for index, part in enumerate(content)
        ]
    return content


def _parts(source: str, expression: type[Expression]) -> Iterator[str | Expression]:
    literal, position = "", 0
    while position < len(source):
        character = source[position]
        if character in "{}" and source[position : position + 2] == character * 2:
            literal += character
            position += 2
        elif character == "{":
            if literal:
                yield literal
            end = _closing_brace(source, position)
            yield expression(source[position + 1 : end].strip())
            literal, position = "", end + 1
        elif character == "}":
            raise ValueError(f"a }} without {{ at character {position + 1}; a literal one is }}}}")
        else:
            literal += character
            position += 1
    if literal or not source:
        yield literal


def _closing_brace(source: str, opening: int) -> int:
    """Where the expression ends that starts at `opening`; braces in its quotes do not count."""
    depth, quote, position = 0, "", opening
    while position < len(source):
        character = source[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in _QUOTES:
            quote = character
        else:
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                return position
        position += 1
    raise ValueError(f"the {{ at character {opening + 1} is not closed; a literal one is {{{{")
