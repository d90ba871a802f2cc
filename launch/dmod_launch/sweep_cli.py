"""The command `dmod-sweep`."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dmod.base import ClusterError, InvalidArgument
from dmod_launch.ray_engine import load_ray
from dmod_launch.sweeping import sweep

__all__ = ["main", "parse_space"]

_DOMAINS = ("uniform", "quniform", "loguniform", "qloguniform", "randint", "lograndint", "choice", "randn")
_MODULE = "dmod_sweep_program"


def parse_space(texts: Sequence[str], tune: Any) -> dict[str, Any]:
    """Settings as on the command line: ``lr=loguniform(1e-3,1)``, ``hidden=16,32`` (a grid), ``epochs=3``.

    Raises
    ------
    InvalidArgument
        One cannot be read.
    """
    space: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier() or not value:
            raise InvalidArgument(f"--set {text}: expected NAME=VALUE, such as lr=0.1 or hidden=16,32")
        space[name] = _domain(text, value.strip(), tune)
    return space


def _domain(text: str, value: str, tune: Any) -> Any:
    kind, bracket, rest = value.partition("(")
    if bracket and kind in _DOMAINS and rest.endswith(")"):
        arguments = [_value(part) for part in rest[:-1].split(",")]
        try:
            return tune.choice(arguments) if kind == "choice" else getattr(tune, kind)(*arguments)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"--set {text}: {error}") from None
    if bracket:
        raise InvalidArgument(f"--set {text}: {kind!r}, expected one of {', '.join(_DOMAINS)}")
    values = [_value(part) for part in value.split(",")]
    return values[0] if len(values) == 1 else tune.grid_search(values)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()  # a word


def load_function(target: str) -> Callable[[dict[str, Any]], Any]:
    """The function that ``FILE.py:NAME`` names; NAME is 'train' if it is left out.

    Raises
    ------
    InvalidArgument
        There is no such file, it has no such function, or it cannot be imported.
    """
    path, _, name = target.partition(":")
    name = name or "train"
    if not Path(path).is_file():
        raise InvalidArgument(f"{target}: {path}: no such file; expected FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(Path(path).resolve().parent))  # as when it runs as a script
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InvalidArgument(f"{path}: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InvalidArgument(f"{target}: {path} has no function {name!r}; expected FILE.py:FUNCTION")
    importlib.import_module("ray.cloudpickle").register_pickle_by_value(module)  # nodes lack the file
    return function  # type: ignore[no-any-return]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dmod-sweep",
        description="Train with many settings on Ray, and find the best: calls FUNCTION of FILE.py with a "
        "dictionary of settings, in every trial. Leaves a table, pictures and checkpoints in a directory.",
    )
    option = parser.add_argument
    option("function", metavar="FILE.py[:FUNCTION]", help="default: train")
    option(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting: a value, a grid of them such as 16,32, or a distribution such as loguniform(1e-3,1) "
        f"({', '.join(_DOMAINS)}); may be repeated",
    )
    option("--metric", default="validation-accuracy", help="default: %(default)s")
    option("--mode", choices=["max", "min"], default="max", help="default: %(default)s")
    option("--num-samples", type=int, default=1, help="how often settings are drawn; default: %(default)s")
    option("--scheduler", choices=["fifo", "asha"], default="fifo", help="default: %(default)s")
    option("--max-concurrent", type=int, metavar="N", help="trials at a time")
    option("-n", "--num-workers", type=int, default=1, help="of each trial; default: %(default)s")
    option("-s", "--num-servers", type=int, help="of each trial; default: as many as workers, none for one")
    option("--cpus-per-worker", type=float, default=1.0, help="default: %(default)s")
    option("--gpus-per-worker", type=float, default=0.0, help="default: %(default)s")
    option("--max-failures", type=int, default=2, help="of each trial; default: %(default)s")
    option("--seed", type=int, help="draw the same settings again")
    option("--name", help="of the directory with the results")
    option("--results", default="~/ray_results", help="where that directory is; default: %(default)s")
    option("--address", help="of a Ray cluster; default: RAY_ADDRESS, or a new one on this machine")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        load_ray()
        tune = importlib.import_module("ray.tune")
        found = sweep(
            load_function(arguments.function),
            parse_space(arguments.set, tune),
            metric=arguments.metric,
            mode=arguments.mode,
            num_samples=arguments.num_samples,
            scheduler=arguments.scheduler,
            max_concurrent=arguments.max_concurrent,
            num_workers=arguments.num_workers,
            num_servers=arguments.num_servers,
            cpus_per_worker=arguments.cpus_per_worker,
            gpus_per_worker=arguments.gpus_per_worker,
            max_failures=arguments.max_failures,
            seed=arguments.seed,
            name=arguments.name,
            storage_path=arguments.results,
            address=arguments.address,
        )
    except InvalidArgument as error:
        parser.error(str(error))
    except ClusterError as error:
        print(f"dmod-sweep: {error}", file=sys.stderr)
        return 1
    print(found)
    print(f"Best: {found.best.config}")
    print("Written: " + ", ".join(str(path) for path in found.save()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
