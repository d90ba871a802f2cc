"""The public names are those listed in public_api.txt: none comes, goes or is renamed by accident.

Functions that `sym` and `nd` generate from the operator table are left out; the table's own tests name them.

After an intended change: ``python tests/test_public_api.py > tests/public_api.txt``.
"""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import dmod
from dmod.ops import OPERATORS

GENERATED = ("dmod.ndarray", "dmod.symbol")
LOCK = Path(__file__).with_name("public_api.txt")


def public_names() -> list[str]:
    """Every public name, dotted; a module that has two names counts under its own."""
    modules = {dmod.__name__: dmod}
    for name in dmod.__all__:
        value = getattr(dmod, name)
        if isinstance(value, types.ModuleType):
            modules[value.__name__] = value
    return sorted(
        f"{path}.{name}"
        for path, module in modules.items()
        for name in module.__all__
        if not (path in GENERATED and name in OPERATORS)
    )


def test_public_names_are_the_listed_ones() -> None:
    listed = LOCK.read_text(encoding="utf-8").split()
    found = public_names()
    assert sorted(set(found) - set(listed)) == [], "new names"
    assert sorted(set(listed) - set(found)) == [], "names that are gone"


def test_every_public_name_is_there() -> None:
    for dotted in public_names():
        path, _, name = dotted.rpartition(".")
        assert hasattr(sys.modules[path], name), dotted


def test_importing_starts_nothing_even_in_a_servers_environment() -> None:
    code = "import dmod, threading; assert threading.active_count() == 1; print('imported')"
    environ = {"DMLC_ROLE": "server", "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "imported\n", done.stderr


if __name__ == "__main__":
    print("\n".join(public_names()))
