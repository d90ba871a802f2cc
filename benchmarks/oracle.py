"""Finds the interpreters of the systems that dmod is compared with.

The oracle is the Python of an environment that holds MXNet 1.9.1: `make oracle` makes one in .oracle, and
``DMOD_ORACLE`` names another one. The peers are PyTorch and JAX: `make peers` makes .peers, and
``DMOD_PEERS`` names another one. Both variables are paths to python executables.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def find_oracle() -> Path | None:
    """The oracle's python executable, or None if there is none."""
    return _find("DMOD_ORACLE", ".oracle")


def find_peers() -> Path | None:
    """The peers' python executable, or None if there is none."""
    return _find("DMOD_PEERS", ".peers")


def _find(variable: str, folder: str) -> Path | None:
    path = Path(os.environ.get(variable, ROOT / folder / "bin" / "python"))
    return path if path.is_file() else None
