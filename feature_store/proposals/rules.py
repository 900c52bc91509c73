"""What a rule is, and how it proposes sides: a small compiled function, asked of each feature row on its own. Pure."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
from numba import float64, int8, int64
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.types import Array
from numpy.typing import NDArray

from feature_store.features.schema import FEATURES, FeatureSchema
from feature_store.features.source import compiled_once
from feature_store.features.window import compiled
from feature_store.market.arrays import kernel_input
from feature_store.market.clocks import BarClock, UnknownClock

_ROWS = Array(float64, 2, "C", readonly=True)
_Function = TypeVar("_Function", bound=Callable[..., int])


class UnknownRule(ValueError):
    """A rule name that no declaration has."""


class RuleFailed(ValueError):
    """A rule that raised, cannot be compiled, or gave something that is no side."""


@dataclass(frozen=True)
class Rule:
    """The declaration of one rule."""

    name: str
    features: tuple[str, ...]
    """Names of the features it looks at, in the order of its arguments; ``trend_slope@5m`` is one on longer bars."""
    parameters: dict[str, float]
    """Its parameters and their defaults."""
    source: str
    """Paper or book of the rule."""
    version: int
    function: Callable[..., int]
    """Compiled: values of the features, then of the parameters, to -1, 0 or 1."""

    @cached_property
    def code_digest(self) -> str:
        """SHA-256 of the text of what it computes, and of what that refers to; comments and docstrings do not count."""
        return hashlib.sha256("\n".join(_texts(self.function, set())).encode()).hexdigest()

    @cached_property
    def kernel(self) -> Any:
        """The loop over rows, compiled or loaded from disk.

        Raises
        ------
        RuleFailed
            If numba cannot compile the rule.
        """
        text, loop = _loop(self)
        try:
            return compiled_once(loop, text, (_ROWS, int64[::1], float64[::1], int8[::1], int64[::1]))
        except NumbaError as error:
            reason = " ".join(str(error).split())
            raise RuleFailed(
                f"the rule {self.name} cannot be compiled: {reason:.300}; write it in plain arithmetic on its arguments"
            ) from error


RULES: dict[str, Rule] = {}
"""Every rule there is, by name, in the order of declaration."""


def rule(
    *, source: str, version: int = 1, features: Mapping[str, str] | None = None
) -> Callable[[_Function], _Function]:
    """Make the decorated function a rule; its name is the rule's.

    Arguments without a default are names of features on the strategy's clock, those with one are parameters. It gives
    1 to propose a purchase, -1 a sale, 0 neither, and is compiled: plain arithmetic only. It is not asked where a
    feature is NaN.

    Parameters
    ----------
    source : str
        Paper or book of the rule.
    version : int
        To be raised when its arithmetic changes.
    features : mapping of str, optional
        The feature of an argument that is not named like it: ``{"slope": "trend_slope@5m"}`` hands the argument
        ``slope`` the feature on bars of five minutes.

    Raises
    ------
    ValueError
        If the name is taken, it looks at no feature or at one that no declaration has, a default is no finite number,
        or ``features`` names an argument that there is not.
    """

    def add(function: _Function) -> _Function:
        declared = declare(function, source=source, version=version, features=features)
        if declared.name in RULES:
            raise ValueError(f"a rule is named {declared.name!r} already; give this one a name of its own")
        RULES[declared.name] = declared
        return function

    return add


def declare(
    function: Callable[..., int], *, source: str, version: int = 1, features: Mapping[str, str] | None = None
) -> Rule:
    """Describe a function as a rule without making it one of the platform's; see `rule`."""
    name, arguments = function.__name__, inspect.signature(function).parameters.values()
    asked, given = [one.name for one in arguments if one.default is one.empty], dict(features or {})
    parameters = {one.name: one.default for one in arguments if one.default is not one.empty}
    if not asked:
        raise ValueError(f"the rule {name} looks at no feature; name one as an argument without a default")
    for argument in given:
        if argument not in asked:
            raise ValueError(f"the rule {name} has no argument {argument!r} for a feature; {_near(argument, asked)}")
    found = tuple(_feature(name, given.get(argument, argument)) for argument in asked)
    _finite(name, parameters)
    return Rule(
        name,
        found,
        {parameter: float(value) for parameter, value in parameters.items()},
        source,
        version,
        compiled(function),
    )


@dataclass(frozen=True)
class Proposer:
    """A rule with its parameters.

    Raises
    ------
    ValueError
        If the rule has no such parameter, or a value is no finite number.
    """

    rule: Rule
    parameters: dict[str, float]
    """All of the rule's, in its order: what was given laid over its defaults."""

    def __post_init__(self) -> None:
        for name in self.parameters:
            if name not in self.rule.parameters:
                near = _near(name, self.rule.parameters)
                raise ValueError(f"the rule {self.rule.name} has no parameter {name!r}; {near}")
        _finite(self.rule.name, self.parameters)
        laid_over = {**self.rule.parameters, **{name: float(value) for name, value in self.parameters.items()}}
        object.__setattr__(self, "parameters", laid_over)

    def sides(self, X: NDArray[np.float64], schema: FeatureSchema) -> NDArray[np.int8]:  # noqa: N803
        """Ask the rule of each row; what it says of one depends on that row alone.

        The first call of a process loads the compiled rule from disk, or compiles it; one of no rows does only that.

        Parameters
        ----------
        X : array of float64, shape (n, F)
            Feature rows.
        schema : FeatureSchema
            What their columns mean.

        Returns
        -------
        array of int8, shape (n,)
            1 where it proposes to buy, -1 to sell, 0 neither; 0 where a feature it looks at is NaN.

        Raises
        ------
        RuleFailed
            If the rule raises, cannot be compiled, or gives something else than a side; names the row.
        ValueError
            If the schema has not every feature that it looks at, or the rows not as many columns as the schema.
        """
        columns = _columns(self.rule.name, self.rule.features, schema.names)
        rows = kernel_input(X, np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(schema.names):
            raise ValueError(f"the rows have shape {rows.shape}; the schema has {len(schema.names)} columns")
        sides, asked = np.zeros(len(rows), dtype=np.int8), np.zeros(1, dtype=np.int64)
        try:
            wrong = self.rule.kernel(rows, columns, self._values, sides, asked)
        except RuleFailed:
            raise
        except Exception as error:
            raise RuleFailed(f"{self._asked_of(rows, columns, int(asked[0]))}: {error!r}") from error
        if wrong >= 0:
            raise RuleFailed(f"{self._asked_of(rows, columns, wrong)}: what it gave is none of -1, 0 and 1")
        return sides

    @cached_property
    def _values(self) -> NDArray[np.float64]:
        return np.array(list(self.parameters.values()), dtype=np.float64)

    def _asked_of(self, rows: NDArray[np.float64], columns: NDArray[np.int64], row: int) -> str:
        of_row = zip(self.rule.features, rows[row, columns].tolist(), strict=True)
        values = ", ".join(f"{name}={value!r}" for name, value in (*of_row, *self.parameters.items()))
        return f"the rule {self.rule.name} failed in row {row}, {self.rule.name}({values})"

    def identity(self) -> dict[str, Any]:
        """Give everything that decides what it proposes, as a sidecar has it and the loader compares."""
        return {
            "rule": self.rule.name,
            "version": self.rule.version,
            "features": list(self.rule.features),
            "parameters": dict(self.parameters),
            "code_sha256": self.rule.code_digest,
        }


def proposer(name: str, parameters: Mapping[str, float] | None = None) -> Proposer:
    """Give a rule by its name, with parameters laid over its own.

    Raises
    ------
    UnknownRule
        If no rule has the name; names near ones.
    ValueError
        If the rule has no such parameter, or a value is no finite number.
    """
    if name not in RULES:
        raise UnknownRule(f"no rule is named {name!r}; {_near(name, RULES)}")
    return Proposer(RULES[name], dict(parameters or {}))


@lru_cache(maxsize=256)
def _columns(name: str, features: tuple[str, ...], names: tuple[str, ...]) -> NDArray[np.int64]:
    missing = [feature for feature in features if feature not in names]
    if missing:
        raise ValueError(
            f"the rule {name} looks at {', '.join(missing)}, and the schema has only {', '.join(names)}; "
            "put what the rule looks at among the features"
        )
    return np.array([names.index(feature) for feature in features], dtype=np.int64)


def _loop(of: Rule) -> tuple[str, Callable[..., int]]:
    """Write the loop that asks a rule of each row; it gives the row in which that is no side, or -1."""
    values = [f"value_{k}" for k in range(len(of.features))]
    called = ", ".join((*values, *(f"parameters[{k}]" for k in range(len(of.parameters)))))
    lines = (
        "def sides(rows, columns, parameters, out, asked):",
        " for row in range(len(rows)):",
        *(f"  {value} = rows[row, columns[{k}]]  # {of.features[k]}" for k, value in enumerate(values)),
        f"  if {' or '.join(f'isnan({value})' for value in values)}: continue",
        "  asked[0] = row",
        f"  found = ask({called})",
        "  if found is None: return row",
        "  if not (found == -1 or found == 0 or found == 1): return row",
        "  out[row] = 1 if found == 1 else -1 if found == -1 else 0",
        " return -1",
    )
    text = "\n".join(lines) + "\n"
    known: dict[str, Any] = {"__name__": __name__, "ask": of.function, "isnan": math.isnan}
    exec(text, known)  # noqa: S102 (the text is the one above)
    return text, known["sides"]


def _feature(rule_name: str, text: str) -> str:
    """Give a feature's name as a schema has it."""
    plain, at, clock = text.partition("@")
    known = [spec.name for spec in FEATURES]
    if plain not in known:
        raise ValueError(f"the rule {rule_name} looks at {text!r}: no feature is named so; {_near(plain, known)}")
    try:
        return f"{plain}@{BarClock.parse(clock).short}" if at else plain
    except UnknownClock as error:
        raise ValueError(f"the rule {rule_name} looks at {text!r}: {error}") from error


def _finite(name: str, parameters: Mapping[str, Any]) -> None:
    for parameter, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{parameter} of the rule {name} is {value!r}; a parameter is a finite number")


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names) or 'none'}"


def _texts(function: Any, seen: set[int]) -> Iterator[str]:
    """Give the code of a function as text, then what it refers to: other functions, and constants."""
    plain = function.py_func if isinstance(function, Dispatcher) else function
    if id(plain) in seen:
        return
    seen.add(id(plain))
    yield _text(plain)
    names = sorted(set(plain.__code__.co_names) & plain.__globals__.keys())
    for name, thing in ((name, plain.__globals__[name]) for name in names):
        if isinstance(thing, (FunctionType, Dispatcher)):
            yield name
            yield from _texts(thing, seen)
        elif isinstance(thing, (int, float, str, tuple)):
            yield f"{name} = {thing!r}"


def _text(function: FunctionType) -> str:
    """Give the source without decorators, comments, docstring and annotations; the bytecode if there is no source."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, SyntaxError, ValueError):
        return f"{function.__code__.co_code.hex()} {function.__code__.co_consts} {function.__defaults__}"
    if not isinstance(tree, ast.FunctionDef):
        return ast.unparse(tree)
    tree.name, tree.decorator_list, tree.returns = "function", [], None  # its name is said beside it
    for argument in (*tree.args.args, *tree.args.kwonlyargs):
        argument.annotation = None
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
