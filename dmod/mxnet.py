"""``python -m dmod.mxnet SCRIPT ARGS...`` runs a script that was written for MXNet, as it is.

While it runs, ``mxnet`` and its submodules are dmod's, whether MXNet is installed or not, and numpy has the
names again that such scripts use and numpy has since dropped. Nothing else changes: ``sys.argv``,
``sys.path`` and ``__main__`` are what ``python SCRIPT ARGS...`` would make them.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import runpy
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import dmod
from dmod.registry import nearest
from dmod.scope import OUT_OF_SCOPE, why_not

__all__ = ["install", "main", "run"]

_VERSION = "1.9.1"  # of the API: scripts compare it
_USAGE = "usage: python -m dmod.mxnet SCRIPT ARGS...\n       python -m dmod.mxnet -m MODULE ARGS..."

# Where MXNet has what lies elsewhere here, or under a name that one package of ours has for all of it.
_ELSEWHERE = {
    "image.image": "image",
    "io.io": "io",
    "io.utils": "io.base",
    "kvstore.kvstore": "kvstore",
    "module.executor_group": "worker.group",
    "ndarray.ndarray": "ndarray",
    "ndarray.register": "ndarray.functions",
    "optimizer.optimizer": "optimizer",
    "symbol.register": "symbol.functions",
    "symbol.symbol": "symbol",
}
_SHORT = {
    "img": "image",
    "init": "initializer",
    "kv": "kvstore",
    "mod": "module",
    "mon": "monitor",
    "nd": "ndarray",
    "opt": "optimizer",
    "rnd": "random",
    "sym": "symbol",
    "viz": "visualization",
}


class _ModuleAlias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``mxnet`` and what is below it among dmod's modules."""

    def find_spec(
        self, fullname: str, path: Any = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a module of MXNet; None for all others."""
        if fullname != "mxnet" and not fullname.startswith("mxnet."):
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=fullname == "mxnet")

    def exec_module(self, module: types.ModuleType) -> None:
        """Put dmod's own module in the place of the new one: there is one of each, under two names."""
        name = module.__spec__.name if module.__spec__ is not None else module.__name__
        if name == "mxnet":
            _fill_root(module)
        elif name == "mxnet.libinfo":
            vars(module)["__version__"] = _VERSION
        else:
            sys.modules[name] = _resolve(name.removeprefix("mxnet."))


def _fill_root(module: types.ModuleType) -> None:
    """``mxnet`` itself is a module of its own, with dmod's names, so that submodules are sought below it."""
    for name in dmod.__all__:
        setattr(module, name, getattr(dmod, name))
    module.__doc__ = dmod.__doc__
    vars(module).update(__version__=_VERSION, __path__=[], __all__=list(dmod.__all__))

    def missing(name: str) -> Any:
        if name in OUT_OF_SCOPE:
            raise AttributeError(why_not("mxnet", name))
        raise AttributeError(
            f"module 'mxnet' (which is dmod) has no attribute {name!r}{nearest(name, dmod.__all__)}"
        )

    vars(module)["__getattr__"] = missing


def _resolve(name: str) -> types.ModuleType:
    """The module of dmod that is MXNet's ``mxnet.<name>``."""
    first, _, rest = name.partition(".")
    if first in OUT_OF_SCOPE:
        raise ImportError(why_not("mxnet", first), name=f"mxnet.{name}")
    first = _SHORT.get(first, first)
    own = f"{first}.{rest}" if rest else first
    own = _ELSEWHERE.get(own, own)
    try:
        return importlib.import_module(f"dmod.{own}")
    except ModuleNotFoundError as error:
        if error.name is None or not f"dmod.{own}".startswith(error.name):
            raise  # something that the module needs is not installed
        hint = nearest(first, dmod.__all__)
        raise ModuleNotFoundError(
            f"No module named 'mxnet.{name}': dmod has no module like it{hint}", name=f"mxnet.{name}"
        ) from None


# ---- numpy's dropped names


def _fromstring(string: Any, dtype: Any = float, count: int = -1, sep: str = "", **kwargs: Any) -> Any:
    """As it was: without `sep`, the bytes of `string` are the array's memory."""
    if sep:
        return _numpy_fromstring(string, dtype, count, sep=sep, **kwargs)
    data = string.encode("latin-1") if isinstance(string, str) else string
    return np.frombuffer(data, dtype, count).copy()


_numpy_fromstring: Callable[..., Any] = np.fromstring

_NUMPY_NAMES: dict[str, Any] = {
    "Inf": np.inf,
    "Infinity": np.inf,
    "NINF": -np.inf,
    "NZERO": -0.0,
    "NaN": np.nan,
    "PINF": np.inf,
    "PZERO": 0.0,
    "alltrue": np.all,
    "asfarray": lambda a, dtype=np.float64: np.asarray(a, dtype),
    "asscalar": lambda a: a.item(),
    "bool": bool,
    "complex": complex,
    "complex_": np.complex128,
    "cumproduct": np.cumprod,
    "float": float,
    "float_": np.float64,
    "in1d": lambda ar1, ar2, **kwargs: np.isin(np.ravel(ar1), ar2, **kwargs),
    "infty": np.inf,
    "int": int,
    "longcomplex": np.clongdouble,
    "longfloat": np.longdouble,
    "mat": np.asmatrix,
    "msort": lambda a: np.sort(a, 0),
    "object": object,
    "product": np.prod,
    "round_": np.round,
    "row_stack": np.vstack,
    "singlecomplex": np.complex64,
    "sometrue": np.any,
    "str": str,
    "string_": np.bytes_,
    "trapz": getattr(np, "trapezoid", None),
    "unicode": str,
    "unicode_": np.str_,
}


def _supply_numpy_names() -> list[tuple[str, Any]]:
    """Give numpy the names that it has dropped; returns what was changed, with the old values."""
    changed: list[tuple[str, Any]] = [("fromstring", np.fromstring)]
    np.fromstring = _fromstring  # type: ignore[assignment]
    for name, value in _NUMPY_NAMES.items():
        if value is not None and name not in dir(np):
            changed.append((name, None))
            setattr(np, name, value)
    return changed


# ---- installing, running


def install() -> Callable[[], None]:
    """Make ``import mxnet`` import dmod from now on, in a notebook for example.

    Modules that have imported a real MXNet keep it.

    Returns
    -------
    callable
        Takes everything back.

    Examples
    --------
    >>> remove = install()
    >>> import mxnet as mx
    >>> mx.nd.ones((2,)).asnumpy().astype(np.int)
    array([1, 1])
    >>> remove()
    """
    finder = _ModuleAlias()
    replaced = {name: m for name, m in sys.modules.items() if name == "mxnet" or name.startswith("mxnet.")}
    for name in replaced:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    changed = _supply_numpy_names()

    def remove() -> None:
        if finder not in sys.meta_path:
            return
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n == "mxnet" or n.startswith("mxnet.")]:
            del sys.modules[name]
        sys.modules.update(replaced)
        for name, old in changed:
            delattr(np, name) if old is None else setattr(np, name, old)

    return remove


def run(script: str, args: Sequence[str] = ()) -> None:
    """Run a script as ``python SCRIPT ARGS...`` does, with dmod for MXNet.

    Parameters
    ----------
    script : str
        A file, or a directory or zip file that holds ``__main__.py``.
    args : sequence of str
        ``sys.argv[1:]``.

    Raises
    ------
    OSError
        The script cannot be read.
    """
    sys.argv[:] = [script, *args]
    if not os.path.isfile(script) or script.endswith((".zip", ".pyz", ".pyc")):
        if not os.path.exists(script):
            raise FileNotFoundError(f"no such script: {script!r}")
        install()
        runpy.run_path(script, run_name="__main__")
        return
    with io.open_code(os.path.abspath(script)) as file:
        code = compile(file.read(), script, "exec", dont_inherit=True)
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    module = types.ModuleType("__main__")
    vars(module).update(__file__=script, __cached__=None, __package__=None, __builtins__=__builtins__)
    loader = importlib.machinery.SourceFileLoader("__main__", script)
    module.__loader__ = loader
    install()
    sys.modules["__main__"] = module
    exec(code, vars(module))


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``python -m dmod.mxnet``."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] in (["-h"], ["--help"]):
        print(_USAGE)
        return 0
    if args[:1] == ["-m"] and len(args) > 1:
        install()
        sys.argv[:] = args[1:]
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
        return 0
    if not args or args[0].startswith("-"):
        print(_USAGE, file=sys.stderr)
        return 2
    if not os.path.exists(args[0]):
        print(f"python -m dmod.mxnet: no such script: {args[0]!r}", file=sys.stderr)
        return 2
    run(args[0], args[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
