"""Runs a training function in a process of a job: ``python -m dmod_launch.function``.

The function and its configuration come from who has started the process, over its channel.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
from multiprocessing.connection import Connection
from typing import Any

from dmod.config import settings
from dmod_launch.child import CHANNEL
from dmod_launch.training import Context, exchange, set_context

__all__ = ["COMMAND", "main"]

COMMAND = ("", "-m", "dmod_launch.function")
"""Runs this file, with the Python of the node."""


def main() -> None:
    """Fetch the function, run it, and send back what it returns."""
    channel = Connection(int(os.environ.pop(CHANNEL)))
    job = settings()
    rank = job.rank or 0
    set_context(Context(rank, job.num_workers, channel=channel))
    given: dict[str, Any] = pickle.loads(exchange({"kind": "hello"}))
    for entry in given["path"]:
        if entry not in sys.path:
            sys.path.append(entry)
    set_context(Context(rank, job.num_workers, channel=channel, **given["context"]))
    function, config = pickle.loads(given["function"]), pickle.loads(given["config"])
    value = function(config)
    if rank == 0:
        exchange({"kind": "value", "value": _packed(value)})


def _packed(value: Any) -> str:
    """Text of a pickle; of what cannot be pickled, its description."""
    try:
        data = pickle.dumps(value)
    except Exception:
        data = pickle.dumps(repr(value))
    return base64.b64encode(data).decode()


def unpacked(message: bytes) -> dict[str, Any]:
    """A message of this process, as a dictionary."""
    said: dict[str, Any] = json.loads(message)
    if said["kind"] == "value":
        said["value"] = pickle.loads(base64.b64decode(said["value"]))
    return said


if __name__ == "__main__":
    main()
