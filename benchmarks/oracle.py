"""Finds the oracle: the Python of an environment that holds MXNet 1.9.1 (`make oracle` makes one in .oracle).

``DMOD_ORACLE`` names another one: a path to its python executable.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def find_oracle() -> Path | None:
    """The oracle's python executable, or None if there is none."""
    path = Path(os.environ.get("DMOD_ORACLE", ROOT / ".oracle" / "bin" / "python"))
    return path if path.is_file() else None
