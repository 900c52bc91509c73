"""The digest of the code that feature values come from, and how numba's work on that code is kept on disk.

numba's cache notices changes of the file of a function only, not of the functions it calls. So what it keeps lies in a
directory named by the digest of every file that a kernel here is made of; and a step, whose features may be anybody's,
is kept under the digest of the code it is made of, however many files that comes from (`compiled_once`).
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Final

import numba
import numpy as np
import platformdirs
from numba.core.dispatcher import Dispatcher

from feature_store.market import types
from feature_store.market.numba_cache import share_safely

_FILES: Final = ("features/window", "features/library", "features/kernels", "features/folding", "features/projection")
_WALL_CLOCK: Final = (types.ist_day, types.ist_time_of_day, types.IST_OFFSET_NS, types.REGULAR_OPEN_NS)
_KNOWN_MODULES: Final = ("builtins", "math", "numpy", "numba")
"""Modules whose code is a version of Python's or numba's own, which numba's cache looks at itself."""


class _Unknown(Exception):
    """Something in a function's code that has no digest."""


def code_digest(function: Callable[..., Any]) -> str | None:
    """SHA-256 of what a function computes: its code, and that of every function and constant that it refers to.

    Two functions of one digest compute the same; in what file and line they stand does not count.

    Returns
    -------
    str or None
        None if the function refers to something whose content cannot be told (an object of a class of its own).
    """
    try:
        return hashlib.sha256("\n".join(_parts(function, set())).encode()).hexdigest()
    except _Unknown:
        return None


def _parts(thing: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(thing, Dispatcher):
        yield repr(sorted((name, repr(option)) for name, option in thing.targetoptions.items()))
        yield from _parts(thing.py_func, seen)
    elif isinstance(thing, FunctionType):
        if id(thing) in seen:
            yield f"again {thing.__qualname__}"
            return
        seen.add(id(thing))
        yield from _code_parts(thing.__code__)
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        yield from _parts((thing.__defaults__, thing.__kwdefaults__, tuple(cells)), seen)
        globals_, names = _names(thing.__code__)
        yield from _referred(globals_, names, thing.__globals__, seen)
    elif isinstance(thing, np.ndarray) and thing.dtype != object:
        yield f"{thing.dtype.str} {thing.shape} {hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()}"
    elif isinstance(thing, (tuple, list)):
        yield f"{type(thing).__qualname__} of {len(thing)}"
        for one in thing:
            yield from _parts(one, seen)
    elif isinstance(thing, dict):
        yield from _parts(sorted(thing.items()), seen)
    elif isinstance(thing, (bool, int, float, complex, str, bytes, np.generic, type(None))):
        yield f"{type(thing).__qualname__} {thing!r}"
    elif isinstance(thing, (type, BuiltinFunctionType, np.ufunc)):
        yield f"{getattr(thing, '__module__', '')}.{thing.__name__} {getattr(thing, '_fields', '')}"
    else:
        raise _Unknown(repr(thing))


def _code_parts(code: CodeType) -> Iterator[str]:
    """Bytecode, names and constants; those of functions inside it too."""
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {code.co_cellvars}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_parts(constant)
        else:
            yield repr(constant)


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """Names of the globals that code looks up, and all names in it: attributes of modules are among those."""
    loaded = {step.argval for step in dis.get_instructions(code) if step.opname in {"LOAD_GLOBAL", "LOAD_NAME"}}
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner_loaded, inner_names = _names(constant)
            loaded, names = loaded | inner_loaded, names | inner_names
    return loaded, names


def _referred(wanted: set[str], names: set[str], known: dict[str, Any], seen: set[int]) -> Iterator[str]:
    for name in sorted(wanted & known.keys()):  # the others are builtins
        thing = known[name]
        yield name
        if not isinstance(thing, ModuleType):
            yield from _parts(thing, seen)
        elif thing.__name__.partition(".")[0] in _KNOWN_MODULES:
            yield thing.__name__
        else:
            yield from _referred(names - {name}, names - {name}, vars(thing), seen)


SOURCE_DIGEST: Final = hashlib.sha256(
    b"".join(
        [
            *(Path(__file__).parents[1].joinpath(f"{name}.py").read_bytes() for name in _FILES),
            *(inspect.getsource(one).encode() if callable(one) else str(one).encode() for one in _WALL_CLOCK),
        ]
    )
).hexdigest()
"""SHA-256 of the code that feature values come from."""


def keep_compiled_code() -> None:
    """Keep compiled code in the directory of this digest, unless ``NUMBA_CACHE_DIR`` names another."""
    share_safely()
    if not numba.config.CACHE_DIR:  # what lies in "numba" was not shared safely yet
        numba.config.CACHE_DIR = str(Path(platformdirs.user_cache_dir("alpha-panda")) / "kernels" / SOURCE_DIGEST[:16])


def compiled_once(function: Callable[..., Any], text: str, signature: tuple[Any, ...]) -> Any:
    """Compile a function whose code was put together while the program runs, once on a machine.

    What numba makes of it is kept on disk, like that of code in files: the text it was made of is written to a file
    that its `code_digest` names, and numba's cache stands beside it. So another process loads it, and a change of any
    function in it, in whatever file, makes another one. Processes that compile it at once write the same.

    Parameters
    ----------
    function : function
        Of ``signature``; dividing by zero gives inf or NaN, as in numpy.
    text : str
        What a traceback or a curious reader may want to see of it.
    signature : tuple of numba types
        It takes arguments of these types and no others.

    Notes
    -----
    Where nothing can be written, or the function's code has no digest, it is compiled for this process alone.
    """
    file = _written(text, code_digest(function))
    options = {"nogil": True, "error_model": "numpy"}
    kernel = numba.njit(**options)(function)
    if file is not None:
        named = FunctionType(function.__code__.replace(co_filename=str(file)), function.__globals__, function.__name__)
        try:
            kernel = numba.njit(cache=True, **options)(named)
        except RuntimeError:  # numba has no directory that it can write to
            kernel = numba.njit(**options)(function)
    try:
        kernel.compile(signature)
    except OSError:  # it is compiled, but the disk is full, or the directory has been taken away since
        if not kernel.signatures:
            raise
    kernel.disable_compile()
    return kernel


def _written(text: str, digest: str | None) -> Path | None:
    """Write a text under its digest, unless it stands there; None where that cannot be."""
    keep_compiled_code()
    path = Path(numba.config.CACHE_DIR) / f"step_{digest}.py"
    try:
        if digest is not None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
            beside.write_text(text, encoding="utf-8")
            try:
                path.hardlink_to(beside)  # whole, and never again: numba's cache looks at the time of the file
            except FileExistsError:
                pass
            finally:
                beside.unlink()
    except OSError:
        return None
    return path if digest is not None else None
