"""Looks at a host before a job starts there: runs on the host, with nothing but the standard library.

As ``probe.py PIPE ROOT_HOST ROOT_PORT INTERFACE PYTHON TIMEOUT_S``. It prints two lines of JSON: what it has
found, and, when a line with the other hosts' addresses has come through PIPE, which of them it cannot reach.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading

_SIOCGIFADDR = 0x8915
_QUESTION = "import dmod, sys; print(dmod.__version__, '%d.%d' % sys.version_info[:2])"


def address_of(interface: str) -> str:
    """The IPv4 address of an interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        packed = struct.pack("256s", interface.encode()[:15])
        return socket.inet_ntoa(fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, packed)[20:24])


def connect(host: str, port: int, timeout_s: float) -> str:
    """Connect to an address; returns the own one of the connection."""
    with socket.create_connection((host, port), timeout_s) as connection:
        return str(connection.getsockname()[0])


def installed(python: str) -> dict[str, str]:
    """What dmod and Python are there for the job."""
    try:
        done = subprocess.run([python, "-c", _QUESTION], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": f"{python}: {getattr(error, 'strerror', None) or error}"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return {"error": f"{python}: {lines[-1] if lines else 'cannot import dmod'}"}
    version, python_version = done.stdout.split()
    return {"dmod": version, "python": python_version}


def answer(listener: socket.socket) -> None:
    """Accept whoever comes, until the process ends."""
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def reason(error: OSError) -> str:
    """Why a connection failed."""
    return "timed out" if isinstance(error, TimeoutError) else str(error.strerror or error).lower()


def main() -> None:
    """Look, and say what there is."""
    pipe, root_host, root_port, interface, python, seconds = sys.argv[1:]
    timeout_s = float(seconds)
    found: dict[str, object] = {"cores": len(os.sched_getaffinity(0)), **installed(python)}
    listener = socket.socket()
    try:
        own = connect(root_host, int(root_port), timeout_s)
    except OSError as error:
        found["root"] = reason(error)
        own = ""
    try:
        found["host"] = address_of(interface) if interface else own
        if found["host"]:
            listener.bind((found["host"], 0))
            listener.listen()
            found["port"] = listener.getsockname()[1]
            threading.Thread(target=answer, args=(listener,), daemon=True).start()
    except OSError as error:
        found["listen"] = f"{interface or own}: {reason(error)}"
    print(json.dumps(found), flush=True)
    with os.fdopen(int(pipe)) as orders:
        peers = json.loads(orders.readline() or "[]")
        unreached = []
        for name, host, port in peers:
            try:
                connect(host, port, timeout_s)
            except OSError as error:
                unreached.append([name, reason(error)])
        print(json.dumps(unreached), flush=True)
        orders.readline()  # stay, for the others, until the launcher has heard all


if __name__ == "__main__":
    main()
