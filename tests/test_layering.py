"""Imports go one way only: each unit of dmod imports from the units below it, and from nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Unit (a file or directory directly under dmod/): the units that it rests on; what these rest on is implied.
RESTS_ON: dict[str, set[str]] = {
    "base": set(),
    "log": set(),
    "engine": {"base"},
    "config": {"base"},
    "registry": {"base"},
    "scope": set(),
    "atomic_file": {"base"},
    "attribute": {"base"},
    "name": {"base"},
    "context": {"base", "config"},
    "device": {"context", "registry", "config", "log"},
    "ops": {"device", "registry"},
    "ndarray": {"ops", "atomic_file"},
    "symbol": {"ops", "attribute", "name", "atomic_file"},
    "executor": {"ndarray", "symbol"},
    "operator": {"ndarray", "symbol"},
    "random": {"ndarray"},
    "initializer": {"random"},
    "lr_scheduler": {"ndarray"},
    "optimizer": {"ndarray", "lr_scheduler"},
    "metric": {"ndarray"},
    "io": {"ndarray", "recordio"},
    "recordio": {"ndarray"},
    "image": {"io", "recordio"},
    "im2rec": {"recordio", "atomic_file"},
    "kvstore": {"optimizer"},
    "worker": {"executor", "kvstore", "io", "metric", "initializer"},
    "checkpoint": {"worker"},
    "recovery": {"checkpoint"},
    "callback": {"checkpoint"},
    "monitor": {"checkpoint"},
    "module": {"recovery"},
    "model": {"module", "callback"},
    "rnn": {"checkpoint"},
    "visualization": {"symbol", "io"},
    "test_utils": {"executor", "random", "io", "optimizer"},
    "profiler": {"executor", "kvstore"},
    "doctor": {"device"},
}
ROOTS = {"__init__", "__main__", "mxnet"}  # the public face, which may import everything
# Files of dmod/kvstore that talk to the world; all others there are sans-io, new ones too.
DOES_IO = set("__init__ __main__ base client dist local patient_maker reduce scheduler server".split())  # noqa: SIM905
SANS_IO = sorted({p.stem for p in (ROOT / "dmod" / "kvstore").glob("*.py")} - DOES_IO)
IO_MODULES = set("multiprocessing os pathlib select socket subprocess threading time zmq".split())  # noqa: SIM905


def files(top: str) -> list[Path]:
    return sorted((ROOT / top).rglob("*.py"))


def unit_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "dmod").parts
    return parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, wherever in it the import stands."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from dmod import x` is an import from the root, `from dmod.x import y` is one from dmod.x.
            yield node.lineno, module


def below(unit: str) -> set[str]:
    found, todo = {unit}, [unit]
    while todo:
        new = RESTS_ON[todo.pop()] - found
        found |= new
        todo.extend(new)
    return found


def test_the_table_names_every_unit_and_has_no_cycle() -> None:
    assert {unit_of(p) for p in files("dmod")} <= set(RESTS_ON) | ROOTS
    for unit, lower in RESTS_ON.items():
        assert all(unit not in below(other) for other in lower), unit


@pytest.mark.parametrize("path", files("dmod"), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_below(path: Path) -> None:
    unit = unit_of(path)
    if unit in ROOTS:
        pytest.skip("the public face")
    allowed = below(unit)
    for line, name in imported(path):
        top, _, rest = name.partition(".")
        assert top != "dmod_launch", f"{path.name}:{line} imports the launcher"
        if top == "dmod":
            assert rest, f"{path.name}:{line} imports from the package root; name the defining module"
            assert rest.split(".")[0] in allowed, f"{path.name}:{line}: {unit} must not import {name}"


@pytest.mark.parametrize("path", files("dmod"), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_config_reads_the_environment(path: Path) -> None:
    if path == ROOT / "dmod" / "config.py":
        pytest.skip("the one reader")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = {node.attr} if isinstance(node, ast.Attribute) else set()
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names}
        assert not names & {"environ", "environb", "getenv", "putenv"}, f"{path.name}: the environment"


@pytest.mark.parametrize("name", SANS_IO)
def test_sans_io_files_do_no_io(name: str) -> None:
    path = ROOT / "dmod" / "kvstore" / f"{name}.py"
    for line, module in imported(path):
        assert module.split(".")[0] not in IO_MODULES, f"{path.name}:{line} imports {module}"
        if module.startswith("dmod.kvstore."):
            assert module.split(".")[2] in SANS_IO, f"{path.name}:{line} imports {module}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.Name) and node.id in {"open", "print", "input"}), f"{path.name}"
