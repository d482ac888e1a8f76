"""Bodies of requests: one expression for the whole, or a mapping of templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from .expressions import Expression, ExpressionError
from .templates import Context, Template

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
