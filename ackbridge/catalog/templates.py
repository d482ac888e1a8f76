"""Templates: texts with `{JMESPath}` expressions in them, and the bodies made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from .expressions import Expression, ExpressionError

Context = Mapping[str, Any]
"""What expressions see: payload, metadata, call, callback_url, reference, response, reason."""

_QUOTES = "'\"`"


@dataclass(frozen=True)
class Template:
    """A text in which `{expression}` stands for a value; `{{` and `}}` are braces.

    Attributes:
        source: as it is written in the file.
        parts: literal texts and expressions, in order.
    """

    source: str
    parts: tuple[str | Expression, ...]

    @classmethod
    def read(cls, source: str) -> Self:
        """Take a text apart and compile its expressions.

        Raises:
            ValueError: braces that do not match, or a bad expression.
        """
        return cls(source, tuple(_parts(source)))

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """The expressions in it, in order."""
        return tuple(part for part in self.parts if isinstance(part, Expression))

    def value(self, context: Context) -> Any:
        """The value: of any type for exactly one `{expression}`, else a text.

        None when an expression is null, because half a text is of no use to anybody.

        Raises:
            ExpressionError: an expression cannot be evaluated, or a list or an object would
                have to become part of a text.
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
        return core_schema.no_info_after_validator_function(
            cls.read, core_schema.str_schema(strict=True)
        )


class PathTemplate(Template):
    """The path of a request, from the `/` on."""

    @classmethod
    def read(cls, source: str) -> Self:
        """As `Template.read`; besides, query and fragment are refused."""
        if not source.startswith("/"):
            raise ValueError("must start with /; the rest of the URL is base_url")
        template = super().read(source)
        literal = "".join(part for part in template.parts if isinstance(part, str))
        if any(c in "?#" or not c.isascii() or not c.isprintable() or c == " " for c in literal):
            raise ValueError("must be printable ASCII without blanks, ? and #; use query")
        return template


class ScalarTemplate(Template):
    """The value of a header or of a query parameter; a number or a boolean in the file is fine."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def read(value: str | float | bool) -> ScalarTemplate:
            return cls.read(value) if isinstance(value, str) else cls("", (scalar_text(value, ""),))

        scalars = [
            core_schema.str_schema(strict=True),
            core_schema.bool_schema(strict=True),
            core_schema.int_schema(strict=True),
            core_schema.float_schema(strict=True),
        ]
        return core_schema.no_info_after_validator_function(
            read,
            core_schema.union_schema(
                [*scalars],
                custom_error_type="template",
                custom_error_message="must be a text, a number or a boolean",
            ),
        )


class TextTemplate(Template):
    """A text for people: what is not there leaves a gap, and nothing else."""

    def text(self, context: Context, clean: Callable[[str], str] | None = None) -> str:
        """The text; values that are null are empty.

        White space in values is blanks, and what would not be seen, or would turn the text
        around it, is left out. What a value says is never read as a template.

        Args:
            clean: what every value goes through besides.

        Raises:
            ExpressionError: as `Template.value`.
        """
        return "".join(
            part if isinstance(part, str) else _in_one_line(part, context, clean)
            for part in self.parts
        )

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls.read, core_schema.str_schema(strict=True, min_length=1)
        )


# Control characters, and those that reverse the direction of what follows.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _in_one_line(
    expression: Expression, context: Context, clean: Callable[[str], str] | None
) -> str:
    value = expression.evaluate(context)
    if value is None:
        return ""
    text = _UNSEEN.sub("", " ".join(scalar_text(value, expression.text).split()))
    return clean(text) if clean else text


def scalar_text(value: Any, what: str) -> str:
    """A text, number or boolean as it stands in a URL, a header or a form.

    Raises:
        ExpressionError: `what` is a list or an object.
    """
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise ExpressionError(f"{what} has half a character in it")
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ExpressionError(f"{what} is not a text, a number or a boolean")


def _parts(source: str) -> Iterator[str | Expression]:
    literal, position = "", 0
    while position < len(source):
        character = source[position]
        if character in "{}" and source[position : position + 2] == character * 2:
            literal += character
            position += 2
        elif character == "{":
            if literal:
                yield literal
            end = _closing(source, position)
            yield Expression(source[position + 1 : end].strip())
            literal, position = "", end + 1
        elif character == "}":
            raise ValueError(f"a }} without {{ at character {position + 1}; a literal one is }}}}")
        else:
            literal += character
            position += 1
    if literal or not source:
        yield literal


def _closing(source: str, opening: int) -> int:
    """Where the expression ends that begins at `opening`; braces in its quotes do not count."""
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


Shape = Any
"""A body as it is compiled: mappings and lists of Template, numbers, booleans and null."""


@dataclass(frozen=True)
class BodyTemplate:
    """A body: one expression for all of it, or a mapping whose leaves are templates.

    Attributes:
        shape: an Expression, or mappings and lists of templates.
    """

    shape: Shape

    @classmethod
    def read(cls, source: Any) -> Self:
        """Compile a body as it stands in the file.

        Raises:
            ValueError: it is neither a text nor a mapping nor a list.
            ValidationError: with the place of every bad template.
        """
        if isinstance(source, str):
            return cls(_whole(source))
        if not isinstance(source, dict | list):
            raise ValueError("must be a mapping, or a text that is one JMESPath expression")  # noqa: TRY004 -- pydantic turns only ValueError into a validation error
        problems: list[InitErrorDetails] = []
        shape = _shape(source, (), problems)
        if problems:
            raise ValidationError.from_exception_data("body", problems, hide_input=True)
        return cls(shape)

    def value(self, context: Context) -> Any:
        """The body's value; null leaves of mappings are left out.

        Raises:
            ExpressionError: as `Template.value`, with the leaf's path in front.
        """
        if isinstance(self.shape, Expression):
            return self.shape.evaluate(context)
        return _fill(self.shape, context, "")

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
            cls.read, json_schema_input_schema=core_schema.union_schema([*as_written])
        )


def _whole(source: str) -> Expression:
    try:
        return Expression(source)
    except ValueError as error:
        if source.startswith("{") and source.endswith("}"):
            hint = "a body that is a text is one expression: write payload, not {payload}"
            raise ValueError(f"{error} ({hint})") from None
        raise


def _shape(source: Any, path: tuple[str | int, ...], problems: list[InitErrorDetails]) -> Shape:
    if isinstance(source, dict):
        return {key: _shape(value, (*path, key), problems) for key, value in source.items()}
    if isinstance(source, list):
        return [_shape(value, (*path, index), problems) for index, value in enumerate(source)]
    if not isinstance(source, str):
        return source
    try:
        return Template.read(source)
    except ValueError as error:
        told = PydanticCustomError("template", "{problem}", {"problem": str(error)})
        problems.append(InitErrorDetails(type=told, loc=path, input=None))
        return None


def _fill(shape: Shape, context: Context, path: str) -> Any:
    if isinstance(shape, Template):
        try:
            return shape.value(context)
        except ExpressionError as error:
            raise ExpressionError(f"{path.removeprefix('.')}: {error}") from None
    if isinstance(shape, dict):
        filled = ((key, _fill(part, context, f"{path}.{key}")) for key, part in shape.items())
        return {key: value for key, value in filled if value is not None}
    if isinstance(shape, list):
        return [_fill(part, context, f"{path}.{index}") for index, part in enumerate(shape)]
    return shape
