"""Walks through all that users may rely on, and writes it down: one line for each name.

A name stands under the module that users import it from, with all that a class inherits inside the package. So the text
stays as it is when code moves from one private module to another, and it is the same with every Python.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import gearman_pool
from gearman_pool import ClientOptions, errors
from gearman_pool.cli import exits
from gearman_pool.cli.processes.health import metrics
from gearman_pool.cli.processes.supervisor import Snapshot
from gearman_pool.cli.program import make_parser
from gearman_pool.options import parse_servers
from gearman_pool.testing import pytest_plugin

__all__ = ["MODULES", "interface", "methods", "names_of", "text"]

PACKAGE = Path(gearman_pool.__file__).parent

#: What users import from, beside the package itself. A class belongs to the first of those that have it.
MODULES = (
    "constants",
    "errors",
    "events",
    "encoders",
    "options",
    "connection",
    "future",
    "job",
    "util",
    "connection_manager",
    "client",
    "worker",
    "admin_client",
    "testing",
    "protocol",
)

#: Public by name alone: the library calls them.
OUR_OWN = {
    "GearmanConnection.of",
    "JobFuture.__init__",
    "set_result",
    "set_exception",
}

#: Modules of classes that a public one inherits what the engine calls from: a future's way and its outcome.
FOR_THE_ENGINE = {"gearman_pool.jobs.flight", "gearman_pool.threads.outcome"}

#: Special methods that users call, by syntax of the language.
SPECIAL = {
    "__await__",
    "__call__",
    "__contains__",
    "__enter__",
    "__exit__",
    "__init__",
    "__iter__",
    "__len__",
    "__next__",
}

_Line = tuple[str, str]


def interface() -> list[str]:
    """Return the lines, in the order of the names."""
    lines = [*_python(), *_command_line(), *_plugin(), *_surroundings()]
    return [f"{name}: {what}" for name, what in sorted(lines)]


def text() -> str:
    """Return the lines under a heading, as they stand in the file."""
    head = f"# The public interface of gearman_pool {gearman_pool.__version__}. See python -m tests.public_interface"
    return "\n".join([head, "", *interface(), ""])


# ---- modules and what is in them -----------------------------------------------------------------------------------


def _module(name: str) -> ModuleType:
    return import_module(f"gearman_pool.{name}" if name else "gearman_pool")


def names_of(name: str) -> list[str]:
    """Return the public names of a module."""
    # The protocol has python-gearman's names alone, and loads them when they are asked for.
    module = _module("protocol.python_gearman" if name == "protocol" else name)
    return sorted(module.__all__)


@cache
def _homes() -> dict[Any, str]:
    """Where each class and function of the package is said to be."""
    homes: dict[Any, str] = {}
    for module in (*MODULES, ""):
        things = {name: getattr(_module(module), name) for name in names_of(module)}
        # The one of two names that it calls itself by.
        for name, thing in sorted(things.items(), key=lambda item: item[0] != getattr(item[1], "__name__", "")):
            if _is_ours(thing):
                homes.setdefault(thing, ".".join(filter(None, ["gearman_pool", module, name])))
    return homes


def _is_ours(thing: Any) -> bool:
    # AnyTimeout is the built-in TimeoutError, and a class of its own on Python 3.10 alone.
    return (
        (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__.partition(".")[0] == "gearman_pool"
        and thing is not errors.AnyTimeout
    )


def _called(thing: Any) -> str:
    """What a class or function is called by users."""
    if thing is errors.AnyTimeout:
        return "TimeoutError"
    if thing in _homes():
        return _homes()[thing]
    parts = [part for part in thing.__module__.split(".") if not part.startswith("_")]
    return ".".join([*(part for part in parts if part != "builtins"), thing.__qualname__])


def _python() -> Iterator[_Line]:
    for module in ("", *MODULES):
        path = ".".join(filter(None, ["gearman_pool", module]))
        yield path, "module"
        for name in names_of(module):
            yield from _thing(f"{path}.{name}", getattr(_module(module), name))


def _thing(path: str, thing: Any) -> Iterator[_Line]:
    if path == "gearman_pool.__version__":
        yield path, "constant"
    elif inspect.isclass(thing) or inspect.isfunction(thing):
        if _called(thing) != path:
            yield path, f"is {_called(thing)}"
        elif inspect.isclass(thing):
            yield from _class(path, thing)
        else:
            yield path, f"function {_signature(thing)}"
    elif isinstance(thing, Mapping):
        yield path, "constant, a mapping"
        for key, value in thing.items():
            # Of a mapping within a mapping the keys alone: its values are explanations.
            yield f"{path}[{key!r}]", _value(list(value) if isinstance(value, Mapping) else value)
    else:
        yield path, f"constant = {_value(thing)}"


# ---- classes -------------------------------------------------------------------------------------------------------


def _class(path: str, kind: type) -> Iterator[_Line]:
    bases = [_called(base) for base in _bases(kind)]
    parameters = getattr(kind, "__dataclass_params__", None)
    words = [
        "class",
        *(["frozen"] if parameters is not None and parameters.frozen else []),
        *([f"({', '.join(bases)})"] if bases else []),
        *([f"total={kind.__total__}"] if hasattr(kind, "__total__") else []),
    ]
    yield path, " ".join(words)
    for name in _members(kind):
        if not OUR_OWN & {name, f"{kind.__name__}.{name}"}:
            yield f"{path}.{name}", _member(kind, name)


def _bases(kind: type) -> Iterator[type]:
    """The bases as users know them: in place of one that they cannot import, its own bases."""
    for base in kind.__bases__:
        if _is_ours(base) and base not in _homes():
            yield from _bases(base)
        elif base is not object:
            yield base


def _ours_of(kind: type) -> list[type]:
    """A class and its bases, as far as they stand in the package."""
    return [
        base
        for base in kind.__mro__
        if base.__module__.partition(".")[0] == "gearman_pool" and base.__module__ not in FOR_THE_ENGINE
    ]


def _members(kind: type) -> list[str]:
    """The public names of a class: what its body defines, and what its methods set on their objects."""
    names = set()
    for base in _ours_of(kind):
        names.update(name for name, thing in vars(base).items() if not _is_made_by_typing(thing))
        names.update(_written(base))
    return sorted(name for name in names if name in SPECIAL or not name.startswith("_"))


def _is_made_by_typing(thing: Any) -> bool:
    # Protocol gives its classes an __init__.
    return getattr(thing, "__module__", None) == "typing"


def _member(kind: type, name: str) -> str:
    try:
        thing = inspect.getattr_static(kind, name)
    except AttributeError:
        thing = inspect.Parameter.empty
    if isinstance(thing, property):
        settable = ", settable" if thing.fset else ""
        return f"property{settable}{_deprecated(thing.fget)} {_signature(thing.fget, True).removeprefix('() ')}"
    if isinstance(thing, (classmethod, staticmethod)):
        return f"{type(thing).__name__} {_signature(thing.__func__, isinstance(thing, classmethod))}"
    if inspect.isfunction(thing):
        return f"method{_deprecated(thing)} {_signature(thing, True)}"
    return f"attribute{_annotation(kind, name)}{_default(kind, name, thing)}"


def _deprecated(function: Any) -> str:
    return ", deprecated" if hasattr(function, "__deprecated__") else ""


def _annotation(kind: type, name: str) -> str:
    for base in _ours_of(kind):
        annotation = _written(base).get(name)
        if annotation is not None:
            return f": {annotation}"
    return ""


def _default(kind: type, name: str, thing: Any) -> str:
    field = getattr(kind, "__dataclass_fields__", {}).get(name)
    if field is not None:
        if field.default_factory is not dataclasses.MISSING:
            return " = ..."
        return "" if field.default is dataclasses.MISSING else f" = {_value(field.default)}"
    if thing is inspect.Parameter.empty or inspect.ismemberdescriptor(thing):
        return ""
    return f" = {_value(thing)}"


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


@cache
def _definition(kind: type) -> ast.ClassDef:
    """Where a class is written. Its ``__module__`` is the one that users know, which may only pass it on."""
    home = Path(import_module(kind.__module__).__file__ or "")
    for file in (home, *sorted(PACKAGE.rglob("*.py"))):
        for node in ast.walk(_tree(str(file))):  # one may stand in a branch for some version of Python
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                return node
    raise LookupError(f"{kind} stands nowhere")


@cache
def _written(kind: type) -> dict[str, str | None]:
    """The attributes that stand in a class's source with their annotations: in its body, and as ``self.name`` in it."""
    node = _definition(kind)
    found: dict[str, str | None] = {}
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self":
            found[part.attr] = None
    annotated = [part for part in ast.walk(node) if isinstance(part, ast.AnnAssign)]
    for part in annotated:
        target = ast.unparse(part.target)
        if part in node.body or target.startswith("self."):
            found[target.removeprefix("self.")] = ast.unparse(part.annotation)
    return found


def methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(name, function) of each method that is this package's and that users call or override."""
    for name in _members(kind):
        method = inspect.getattr_static(kind, name, None)
        function = getattr(method, "__func__", method)
        if inspect.isfunction(function) and name not in SPECIAL and not OUR_OWN & {name, f"{kind.__name__}.{name}"}:
            yield name, function


# ---- signatures and values -----------------------------------------------------------------------------------------


class _Verbatim:
    """Has `inspect.Signature` write what it would quote."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _signature(function: Callable[..., Any], bound: bool = False) -> str:
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    parameters = [
        parameter.replace(
            default=empty if parameter.default is empty else _Verbatim(_value(parameter.default)),
            annotation=empty if parameter.annotation is empty else _Verbatim(str(parameter.annotation)),
        )
        for parameter in signature.parameters.values()
    ]
    # Annotations are the source's text, for all modules postpone them; but dataclasses give None itself.
    returned = signature.return_annotation
    returned = empty if returned is empty else _Verbatim(str(returned))
    return str(signature.replace(parameters=parameters[1:] if bound else parameters, return_annotation=returned))


def _value(value: Any) -> str:
    """Return a value as text: as a literal or a name, and what has neither as dots."""
    if isinstance(value, logging.Logger):
        return f"Logger {value.name!r}"
    if inspect.isclass(value) or inspect.isfunction(value):
        return _called(value)
    with contextlib.suppress(ValueError, SyntaxError):
        if ast.literal_eval(repr(value)) == value:
            return repr(value)
    return "..."


# ---- the command line ----------------------------------------------------------------------------------------------


def _command_line() -> Iterator[_Line]:
    parser = make_parser()
    for name in exits.__all__:
        if isinstance(getattr(exits, name), int):
            yield f"gearman-pool, exit code {getattr(exits, name)}", name.lower()
    yield from _arguments("gearman-pool", parser)
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        yield f"gearman-pool {name}", "command"
        yield from _arguments(f"gearman-pool {name}", command)


def _arguments(program: str, parser: argparse.ArgumentParser) -> Iterator[_Line]:
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        words = ["argument" if not action.option_strings else "flag" if action.nargs == 0 else "option"]
        if action.nargs in ("?", "*", "+"):
            words.append(str(action.nargs))
        if action.choices is not None:
            words.append(f"{{{','.join(action.choices)}}}")
        if action.default not in (None, False, argparse.SUPPRESS):
            words.append(f"= {_value(action.default)}")
        name = ", ".join(sorted(action.option_strings)) or action.metavar or action.dest
        yield f"{program} {name}", " ".join(words)


# ---- the pytest plugin ---------------------------------------------------------------------------------------------


def _plugin() -> Iterator[_Line]:
    for node in _tree(pytest_plugin.__file__ or "").body:
        if isinstance(node, ast.FunctionDef):
            fixtures = [decorator for decorator in node.decorator_list if "pytest.fixture" in ast.unparse(decorator)]
            for decorator in fixtures:
                yield f"pytest fixture {node.name}", f"{ast.unparse(decorator)} -> {ast.unparse(node.returns)}"
                # What a fixture that is a factory gives.
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        call = f"({ast.unparse(inner.args)}) -> {ast.unparse(inner.returns)}"
                        yield f"pytest fixture {node.name}()", call
    recorder = _Recorder()
    pytest_plugin.pytest_addoption(recorder)
    pytest_plugin.pytest_configure(recorder)
    yield from recorder.lines


class _Recorder:
    """Stands where pytest's parser and configuration do."""

    def __init__(self) -> None:
        self.lines: list[_Line] = []

    def getgroup(self, name: str) -> _Recorder:
        return self

    def addoption(self, *names: str, **about: Any) -> None:
        self.lines.append((f"pytest option {', '.join(names)}", f"default {_value(about.get('default'))}"))

    def addini(self, name: str, _: str, default: Any) -> None:
        self.lines.append((f"pytest ini option {name}", f"default {_value(default)}"))

    def addinivalue_line(self, name: str, line: str) -> None:
        self.lines.append((f"pytest {name} {line.partition(':')[0]}", "marker"))


# ---- names in a program's surroundings -----------------------------------------------------------------------------


def _surroundings() -> Iterator[_Line]:
    for name in ClientOptions.field_names():
        if _may_stand_in_a_dsn(name):
            yield f"gearman://host/?{name}", "option"
    for line in metrics(Snapshot()).splitlines():
        if not line.startswith("#"):
            yield f"metric {line.rpartition(' ')[0]}", "metric"
    yield from _literal_names()


@cache
def _literal_names() -> set[_Line]:
    """The loggers and the environment variables that the package's source names."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getLogger", "logging.getLogger"):
                found.update((f"logger {name.value}", "logger") for name in node.args if isinstance(name, ast.Constant))
            elif isinstance(node, ast.Constant) and re.fullmatch(_VARIABLE, str(node.value)):
                found.add((f"environment {node.value}", "variable"))
    return found


#: Names of environment variables, which python-gearman's names for the protocol resemble.
_VARIABLE = r"GEARMAND?_(?!COMMAND_|SERVER_COMMAND_|PARAMS_)[A-Z_]*[A-Z]"


def _may_stand_in_a_dsn(name: str) -> bool:
    for value in ("1", "1,2"):
        with contextlib.suppress(ValueError):
            parse_servers(f"gearman://localhost/?{name}={value}")
            return True
    return False
