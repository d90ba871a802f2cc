"""Finds the peers: the Python of an environment that holds torch (`make peers` makes one in .peers).

``DMOD_PEERS`` names another one: a path to its python executable.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def find_peers() -> Path | None:
    """The peers' python executable, or None if there is none."""
    path = Path(os.environ.get("DMOD_PEERS", ROOT / ".peers" / "bin" / "python"))
    return path if path.is_file() else None
