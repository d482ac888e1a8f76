"""JMESPath expressions, compiled once when a file is loaded.

jmespath's interpreter walks the syntax tree at every evaluation, which dominates the cost of
matching a callback. Paths, equality, constants and logic, of which integration files are made, are
compiled to closures instead; every other node is left to the interpreter.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Final, TypeAlias

import jmespath
from jmespath.exceptions import JMESPathError, LexerError, ParseError
from jmespath.lexer import Lexer
from jmespath.visitor import Options, TreeInterpreter
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ackbridge.errors import did_you_mean
from ackbridge.security.secrets import is_secret_ref

from .functions import FUNCTIONS, HIDING, SECRET, ExpressionFunctions, arity

Node: TypeAlias = Any
"""A node of jmespath's syntax tree: `type`, `children` and, for some types, `value`."""

Evaluate: TypeAlias = Callable[[Any], Any]
"""Takes a document, returns the expression's value."""

MAX_LENGTH: Final = 4000
"""Characters of an expression."""

MAX_DEPTH: Final = 60
"""Levels of its syntax tree."""

MAX_COPIES: Final = 1000
"""How often a value may contain one part of the document; `[@, @] | [@, @]` does four times."""

# Nodes whose first child is evaluated over the document, and the others over its result.
_LEFT_FIRST = {
    "subexpression",
    "pipe",
    "projection",
    "value_projection",
    "filter_projection",
    "index_expression",
}


class ExpressionError(ValueError):
    """An expression cannot be evaluated over a document. The text contains no value of it."""


@dataclass(frozen=True)
class Expression:
    """One JMESPath expression.

    Attributes:
        text: the source, as in the file.

    Raises:
        ValueError: the text is not a valid expression; says what is wrong.
    """

    may_carry_secrets: ClassVar[bool] = False
    """Whether `secret()` may be part of the value: the templates of requests only."""

    text: str
    _tree: Node = field(init=False, repr=False, compare=False)
    _evaluate: Evaluate = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tree = _parse(self.text)
        for problem in _secret_problems(tree, may_carry=self.may_carry_secrets):
            raise ValueError(problem)
        object.__setattr__(self, "_tree", tree)
        object.__setattr__(self, "_evaluate", compile_node(tree))

    def __str__(self) -> str:
        return self.text

    @property
    def tree(self) -> Node:
        """The syntax tree."""
        return self._tree

    def evaluate(self, document: Any) -> Any:
        """The value over a document; None where the document has none.

        Raises:
            ExpressionError: a function received a value of the wrong type.
        """
        try:
            return self._evaluate(document)
        except (ValueError, TypeError, ArithmeticError):
            raise ExpressionError(
                f"{self.text} cannot be evaluated: a function received a value of the wrong type"
            ) from None

    def search(self, document: Any) -> Any:
        """As `evaluate`, but None where the expression cannot be evaluated."""
        try:
            return self.evaluate(document)
        except ExpressionError:
            return None

    def holds(self, document: Any) -> bool:
        """Whether the value is true; false where the expression cannot be evaluated."""
        return is_true(self.search(document))

    def referenced_names(self) -> Iterator[tuple[str, ...]]:
        """The paths that are read from the document, such as `("payload",)` or `("call", "id")`."""
        return _paths(self._tree)

    def fields_of(self, part: str) -> Iterator[str | None]:
        """The fields of `part`, such as `headers`, that are read; None for the whole of it.

        A field of the same name elsewhere in the document is taken for it.
        """
        return _fields_of(self._tree, part)

    @property
    def function(self) -> str | None:
        """The name of the function whose result is the value; None if there is none."""
        is_call = self._tree["type"] == "function_expression"
        return str(self._tree["value"]) if is_call else None

    @property
    def carries_secrets(self) -> bool:
        """Whether a secret may be part of the value."""
        return any(True for _ in _secret_problems(self._tree, may_carry=False))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The references that `secret()` is called with."""
        return tuple(_secrets_in(self._tree))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(strict=True, min_length=1),
            serialization=core_schema.to_string_ser_schema(),
        )


@dataclass(frozen=True)
class RequestExpression(Expression):
    """An expression in the template of a request; its value is in no history and no log."""

    may_carry_secrets: ClassVar[bool] = True


def is_true(value: Any) -> bool:
    """Truth in JMESPath: everything but null, false, and empty texts, lists and objects."""
    return not (value is None or value is False or value in ("", [], {}))


def compile_node(node: Node) -> Evaluate:
    """The function that evaluates a syntax tree."""
    # One interpreter for each expression: making one costs as much as an evaluation.
    return _compile(node, TreeInterpreter(Options(custom_functions=ExpressionFunctions())))


def _compile(node: Node, interpreter: TreeInterpreter) -> Evaluate:
    children: list[Node] = node["children"]
    match node["type"]:
        case "field":
            name = node["value"]
            return lambda document: document.get(name) if isinstance(document, dict) else None
        case "literal":
            constant = node["value"]
            return lambda _document: constant
        case "identity" | "current":
            return lambda document: document
        case "subexpression" | "pipe":
            return _chain([_compile(child, interpreter) for child in children])
        case "comparator" if node["value"] in ("eq", "ne"):
            compare = interpreter.COMPARATOR_FUNC[node["value"]]
            left, right = (_compile(child, interpreter) for child in children)
            return lambda document: compare(left(document), right(document))
        case "or_expression":
            left, right = (_compile(child, interpreter) for child in children)
            return lambda document: found if is_true(found := left(document)) else right(document)
        case "and_expression":
            left, right = (_compile(child, interpreter) for child in children)
            return lambda document: right(document) if is_true(found := left(document)) else found
        case _:
            return lambda document: interpreter.visit(node, document)


def _chain(steps: list[Evaluate]) -> Evaluate:
    def evaluate(document: Any) -> Any:
        for step in steps:
            document = step(document)
        return document

    return evaluate


def _parse(text: str) -> Node:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{text[:40]}...: longer than {MAX_LENGTH} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PendingDeprecationWarning)
            tree: Node = jmespath.compile(text).parsed
    except PendingDeprecationWarning:
        raise ValueError(f"{text}: write texts in single quotes, 'like this'") from None
    except (ParseError, LexerError) as error:
        raise ValueError(f"{text}: {_explain(error, len(text))}") from None
    except JMESPathError:
        raise ValueError(f"{text}: is not a JMESPath expression") from None
    except RecursionError:
        raise ValueError(f"{text[:40]}...: nested too deeply") from None
    if _depth(tree, MAX_DEPTH) > MAX_DEPTH:
        raise ValueError(f"{text[:40]}...: nested more than {MAX_DEPTH} levels deep")
    if _copies(tree) > MAX_COPIES:
        raise ValueError(f"{text}: its value may contain a part of the document too many times")
    problems = (*_comparison_problems(text), *_call_problems(tree), *_negation_problems(tree))
    for problem in problems:
        raise ValueError(f"{text}: {problem}")
    return tree


def _depth(node: Any, at_most: int) -> int:
    """The levels of a tree; it is not followed beyond `at_most`."""
    if not isinstance(node, dict):
        return 0
    if at_most == 0:
        return 1
    return 1 + max((_depth(child, at_most - 1) for child in node["children"]), default=0)


def _copies(node: Any) -> int:
    """How often the value of a node may contain what it is evaluated over."""
    if not isinstance(node, dict):
        return 1
    each = [_copies(child) for child in node["children"]]
    match node["type"]:
        case "literal":
            return 0
        case "multi_select_list" | "multi_select_dict" | "function_expression":
            return sum(each)
        case _ if node["type"] in _LEFT_FIRST:
            return math.prod(each)
        case _:
            return max(each, default=1)


def _explain(error: ParseError | LexerError, length: int) -> str:
    kind = str(getattr(error, "token_type", "")).lower()
    if kind == "number":
        return f"numbers are written in backticks: `{error.token_value}`"
    if kind == "eof" or error.lex_position >= length:
        return (
            "is not a complete JMESPath expression; in YAML's {} and [], a text with a comma needs"
            " quotes"
        )
    return f"is not a JMESPath expression; syntax error at character {error.lex_position + 1}"


def _comparison_problems(text: str) -> Iterator[str]:
    """Comparisons with a field where a text or a constant is meant; they are never true."""
    for operator, right in pairwise(Lexer().tokenize(text)):
        if operator["type"] not in ("eq", "ne"):
            continue
        name = right["value"]
        if right["type"] == "unquoted_identifier" and name in ("true", "false", "null"):
            yield f"constants are written in backticks: `{name}`"
        if right["type"] == "quoted_identifier":
            yield (
                f"\"{name}\" in double quotes is a field; a text is '{name}' in single quotes "
                f'(if the field is meant: @."{name}")'
            )


def _call_problems(node: Any) -> Iterator[str]:
    if not isinstance(node, dict):
        return
    if node["type"] == "function_expression":
        yield from _check_call(node["value"], len(node["children"]))
    for child in node["children"]:
        yield from _call_problems(child)


def _negation_problems(node: Any) -> Iterator[str]:
    """`!a.b` reads the field of a boolean, which is always null."""
    if not isinstance(node, dict):
        return
    children = node["children"]
    if node["type"] in ("subexpression", "index_expression"):
        first = children[0]
        if isinstance(first, dict) and first["type"] == "not_expression":
            yield "! applies to the first name only; write !(a.b), not !a.b"
    for child in children:
        yield from _negation_problems(child)


def _secret_problems(node: Any, *, may_carry: bool) -> Iterator[str]:
    """Secrets that are no references, or would become part of what is stored or shown."""
    if not isinstance(node, dict):
        return
    is_call = node["type"] == "function_expression"
    if is_call and node["value"] == SECRET:
        reference = node["children"][0].get("value")
        if not isinstance(reference, str) or not is_secret_ref(reference):
            # Not repeated: it may be the secret itself.
            yield "secret takes a reference as a literal: secret('env:NAME')"
        elif not may_carry:
            yield "secret() is allowed in templates of requests, and within hmac and sha256"
    hides = is_call and node["value"] in HIDING
    for child in node["children"]:
        yield from _secret_problems(child, may_carry=may_carry or hides)


def _secrets_in(node: Any) -> Iterator[str]:
    if not isinstance(node, dict):
        return
    if node["type"] == "function_expression" and node["value"] == SECRET:
        yield node["children"][0]["value"]
    for child in node["children"]:
        yield from _secrets_in(child)


def _check_call(name: str, given: int) -> Iterator[str]:
    if name not in FUNCTIONS:
        hint = did_you_mean(name, FUNCTIONS)
        yield f"unknown function {name}; there are {', '.join(sorted(FUNCTIONS))}.{hint}"
        return
    least, most = arity(name)
    if given < least or (most is not None and given > most):
        count = f"{least}" if most in (None, least) else f"{least} to {most}"
        yield f"{name} takes {count} argument(s), not {given}"


def _paths(node: Any) -> Iterator[tuple[str, ...]]:
    if not isinstance(node, dict) or node["type"] == "expref":
        return
    children = node["children"]
    if node["type"] == "field":
        yield (node["value"],)
    elif node["type"] == "subexpression" and all(c["type"] == "field" for c in children):
        yield tuple(child["value"] for child in children)
    else:
        for child in children[:1] if node["type"] in _LEFT_FIRST else children:
            yield from _paths(child)


def _fields_of(node: Any, part: str) -> Iterator[str | None]:
    if not isinstance(node, dict):
        return
    if node["type"] == "field":
        if node["value"] == part:
            yield None
        return
    children = node["children"]
    if node["type"] != "subexpression":
        for child in children:
            yield from _fields_of(child, part)
        return
    for outer, inner in pairwise([*children, None]):
        if _is_field(outer, part):
            yield inner["value"] if _is_field(inner) else None
        elif not _is_field(outer):
            yield from _fields_of(outer, part)


def _is_field(node: Any, name: str | None = None) -> bool:
    is_field = isinstance(node, dict) and node["type"] == "field"
    return is_field and (name is None or node["value"] == name)
