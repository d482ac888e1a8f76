"""Python code of an integration, where neither fields nor expressions are enough.

The file defines one or more of these functions, which must neither block nor send anything:

- `render(request, context)`: the request as the provider wants it; `request` is an
  `OutboundRequest`, made with `dataclasses.replace`;
- `sign(request, secret)`: headers to add to the finished request; `secret("env:NAME")` resolves a
  reference;
- `read(body, headers)`: the JSON value that expressions see, of the bytes of an answer or of a
  callback whose signature holds.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import SecretError

Function: TypeAlias = Callable[..., Any]

_PARAMETERS = {"render": 2, "sign": 2, "read": 2}


class HookError(ValueError):
    """The file of a hook cannot be used."""


@dataclass(frozen=True)
class Hook:
    """The functions of one integration; None: the integration has none of this kind.

    Attributes:
        refs: the references that `sign` has resolved so far.
    """

    render: Function | None = None
    sign: Function | None = None
    read: Function | None = None
    refs: set[str] = field(default_factory=set, compare=False)

    def read_body(self, body: bytes, headers: Mapping[str, str]) -> Any:
        """The value of a body, by `read`.

        Raises:
            InvalidInputError: the code fails; the text contains nothing of the body.
        """
        return call("read", self.read, body, dict(headers))


def load_hook(file: Path) -> Hook:
    """Run a Python file, and take its functions.

    Raises:
        HookError: it cannot be read or run, or has no usable function.
    """
    spec = importlib.util.spec_from_file_location(f"ackbridge_hook_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise HookError(f"there is no file {file.name} beside the integration file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise HookError(f"{file.name} cannot be run: {type(error).__name__}: {error}") from None
    functions = {name: getattr(module, name, None) for name in _PARAMETERS}
    found = {name: function for name, function in functions.items() if function is not None}
    if not found:
        raise HookError(f"{file.name} defines none of {', '.join(_PARAMETERS)}")
    for name, function in found.items():
        _check(file, name, function)
    return Hook(**found)


def _check(file: Path, name: str, function: Any) -> None:
    count = _PARAMETERS[name]
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise HookError(f"{file.name}: {name} must be a function that is not async")
    try:
        inspect.signature(function).bind(*([None] * count))
    except TypeError:
        raise HookError(f"{file.name}: {name} must take {count} arguments") from None


def call(name: str, function: Function | None, *arguments: Any) -> Any:
    """Call a function of a hook.

    Raises:
        InvalidInputError: it fails; the text names the error's type and place, not its text.
        SecretError: a reference does not resolve.
    """
    if function is None:
        raise InvalidInputError(f"hook: there is no {name}")
    try:
        return function(*arguments)
    except SecretError:
        raise
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = trace.tb_lineno if trace is not None else 0
        problem = f"hook: {name} failed with {type(error).__name__} in line {line}"
        raise InvalidInputError(problem) from None
