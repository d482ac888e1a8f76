"""JMESPath expressions, compiled once when a file is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import jmespath
from jmespath.exceptions import JMESPathError, LexerError, ParseError
from jmespath.functions import Functions
from jmespath.lexer import Lexer
from jmespath.parser import ParsedResult
from jmespath.visitor import TreeInterpreter
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

# What they evaluate first; the rest of them sees the result instead of the document.
_LEFT_FIRST = {
    "subexpression",
    "pipe",
    "projection",
    "value_projection",
    "filter_projection",
    "index_expression",
}
_FUNCTIONS: dict[str, Any] = Functions.FUNCTION_TABLE


class ExpressionError(ValueError):
    """An expression met values it cannot work with. The text names no value."""


@dataclass(frozen=True)
class Expression:
    """One JMESPath expression.

    Attributes:
        text: as it is written in the file.
    """

    text: str
    _compiled: ParsedResult = field(init=False, repr=False, compare=False)
    _evaluate: Evaluate = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile, and find the mistakes that would otherwise show at the first call.

        Raises:
            ValueError: saying what is wrong with the expression.
        """
        compiled = _compile(self.text)
        object.__setattr__(self, "_compiled", compiled)
        object.__setattr__(self, "_evaluate", build_evaluation(compiled.parsed))

    def __str__(self) -> str:
        return self.text

    def evaluate(self, document: Any) -> Any:
        """The value over a document; None where there is none.

        Raises:
            ExpressionError: a function got a value of the wrong type.
        """
        try:
            return self._evaluate(document)
        except (ValueError, TypeError, ArithmeticError):
            raise ExpressionError(
                f"{self.text} cannot be evaluated: a function got a value of the wrong type"
            ) from None

    def search(self, document: Any) -> Any:
        """The value over a document that somebody else has shaped; None where it does not fit."""
        try:
            return self.evaluate(document)
        except ExpressionError:
            return None

    def holds(self, document: Any) -> bool:
        """Whether the value is true as JMESPath has it: not null, false or empty; 0 is true."""
        return is_true(self.search(document))

    def names(self) -> Iterator[tuple[str, ...]]:
        """What it reads directly from the document: `("payload",)`, `("call", "id")`."""
        return _names(self._compiled.parsed)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(strict=True, min_length=1),
            serialization=core_schema.to_string_ser_schema(),
        )


def _compile(text: str) -> ParsedResult:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PendingDeprecationWarning)
            compiled = jmespath.compile(text)
    except PendingDeprecationWarning:
        raise ValueError(f"{text}: write texts in single quotes, 'like this'") from None
    except (ParseError, LexerError) as error:
        raise ValueError(f"{text}: {_explain(error)}") from None
    except JMESPathError:
        raise ValueError(f"{text}: is not a JMESPath expression") from None
    for problem in (*_comparisons(text), *_calls(compiled.parsed)):
        raise ValueError(f"{text}: {problem}")
    return compiled


def _explain(error: ParseError | LexerError) -> str:
    kind = str(getattr(error, "token_type", "")).lower()
    if kind == "number":
        return f"numbers are written in backticks: `{error.token_value}`"
    if kind == "eof":
        return "is not a complete JMESPath expression"
    return f"is not a JMESPath expression, see character {error.lex_position + 1}"


def _comparisons(text: str) -> Iterator[str]:
    """Comparisons with a field where a text or a constant is meant; they would never hold."""
    for left, right in pairwise(Lexer().tokenize(text)):
        if left["type"] not in ("eq", "ne"):
            continue
        name = right["value"]
        if right["type"] == "unquoted_identifier" and name in ("true", "false", "null"):
            yield f"constants are written in backticks: `{name}`"
        if right["type"] == "quoted_identifier":
            yield (
                f"\"{name}\" in double quotes is a field; a text is '{name}' in single quotes "
                f'(if the field is meant: @."{name}")'
            )


def _calls(node: Any) -> Iterator[str]:
    """The functions that do not exist or get the wrong number of arguments."""
    if not isinstance(node, dict):
        return
    if node["type"] == "function_expression":
        yield from _call(node["value"], len(node["children"]))
    for child in node["children"]:
        yield from _calls(child)


def _call(name: str, given: int) -> Iterator[str]:
    if name not in _FUNCTIONS:
        yield f"there is no function {name}; JMESPath has {', '.join(sorted(_FUNCTIONS))}"
        return
    signature = _FUNCTIONS[name]["signature"]
    variadic = bool(signature) and signature[-1].get("variadic", False)
    if given < len(signature) or (given > len(signature) and not variadic):
        yield f"{name} takes {len(signature)} argument(s), not {given}"


def _names(node: Any) -> Iterator[tuple[str, ...]]:
    if not isinstance(node, dict) or node["type"] == "expref":
        return
    children = node["children"]
    if node["type"] == "field":
        yield (node["value"],)
    elif node["type"] == "subexpression" and all(c["type"] == "field" for c in children):
        yield tuple(child["value"] for child in children)
    else:
        for child in children[:1] if node["type"] in _LEFT_FIRST else children:
            yield from _names(child)


Node: TypeAlias = Any
"""A dictionary with `type`, `children` and, for some types, `value`."""
Evaluate: TypeAlias = Callable[[Any], Any]
"""From a document to the value over it."""


def build_evaluation(node: Node) -> Evaluate:
    """The function that a parsed expression stands for."""
    return _build(node, TreeInterpreter())


def is_true(value: Any) -> bool:
    """Truth as JMESPath has it: everything but null, false and what is empty."""
    return not (value is None or value is False or value in ("", [], {}))


def _build(node: Node, interpreter: TreeInterpreter) -> Evaluate:
    children: list[Node] = node["children"]
    match node["type"]:
        case "field":
            return _field(node["value"])
        case "literal":
            constant = node["value"]
            return lambda _document: constant
        case "identity" | "current":
            return lambda document: document
        case "subexpression" | "pipe":
            return _chain([_build(child, interpreter) for child in children])
        case "comparator" if node["value"] in ("eq", "ne"):
            left, right = (_build(child, interpreter) for child in children)
            return _comparison(interpreter.COMPARATOR_FUNC[node["value"]], left, right)
        case "or_expression":
            left, right = (_build(child, interpreter) for child in children)
            return lambda document: found if is_true(found := left(document)) else right(document)
        case "and_expression":
            left, right = (_build(child, interpreter) for child in children)
            return lambda document: right(document) if is_true(found := left(document)) else found
        case _:
            return lambda document: interpreter.visit(node, document)


def _field(name: str) -> Evaluate:
    def evaluate(document: Any) -> Any:
        return document.get(name) if isinstance(document, dict) else None

    return evaluate


def _chain(steps: list[Evaluate]) -> Evaluate:
    def evaluate(document: Any) -> Any:
        for step in steps:
            document = step(document)
        return document

    return evaluate


def _comparison(compare: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(document: Any) -> Any:
        return compare(left(document), right(document))

    return evaluate
