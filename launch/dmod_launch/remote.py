"""Runs Python programs on other hosts, through ssh, with nothing of dmod needed there before they start.

The remote shell starts a Python that reads a length, a JSON header and then nothing more from its standard
input: the header has the program's source, its arguments, a directory and variables. So variables are in no
command line. What else comes through standard input is the program's, as an open file descriptor: for a
keeper it is the lifeline, which closes when the connection breaks or the launcher dies.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["SSH", "header", "remote_command", "source"]

SSH = "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
"""Asks for no password, and notices within 15 s that a host is gone."""
_BOOT = """
import json, os, sys
def take(count):
    data = b""
    while len(data) < count:
        part = os.read(0, count - len(data))
        if not part:
            sys.exit(1)
        data += part
    return data
given = json.loads(take(int.from_bytes(take(4), "big")))
try:
    os.chdir(given["directory"])
except OSError as error:
    sys.exit("dmod-launch: %s: %s" % (given["directory"], error.strerror))
pipe = os.dup(0)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.environ.update(given["environment"])
sys.argv = [given["name"], str(pipe), *given["arguments"]]
exec(compile(given["source"], given["name"], "exec"), {"__name__": "__main__"})
"""


def remote_command(ssh: str, host: str, python: str) -> list[str]:
    """The command that runs on this host, and starts a Python on another.

    Parameters
    ----------
    ssh : str
        Such as `SSH`: what runs a shell command on a host, both of which are its last arguments.
    host : str
    python : str
        The interpreter there.
    """
    return [*shlex.split(ssh), host, f"exec {shlex.quote(python)} -I -S -u -c {shlex.quote(_BOOT)}"]


def header(program: str, arguments: Sequence[str], directory: str, environment: Mapping[str, str]) -> bytes:
    """What the remote Python reads first.

    Parameters
    ----------
    program : str
        A file of this package, which needs no more than the standard library.
    arguments : sequence of str
        Follow, in ``sys.argv``, the number of the descriptor for all else that comes.
    directory : str
        Where it runs.
    environment : mapping
        Variables to add to the host's.
    """
    content = {
        "name": program,
        "source": source(program),
        "arguments": list(arguments),
        "directory": directory,
        "environment": dict(environment),
    }
    data = json.dumps(content).encode()
    return len(data).to_bytes(4, "big") + data


def source(program: str) -> str:
    """The text of a file of this package."""
    return Path(__file__).with_name(program).read_text(encoding="utf-8")
