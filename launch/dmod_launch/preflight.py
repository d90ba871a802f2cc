"""Looks at all hosts of a job before it starts: what is installed, and who reaches whom."""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from dmod.base import ClusterError
from dmod_launch.remote import header, remote_command

__all__ = ["Checked", "check_hosts"]

DEADLINE_S = 90.0
"""For a host to say what it has: connecting, and importing dmod from a slow disk."""
_PEERS_S = 60.0
_CONNECT_S = 5.0


@dataclass(frozen=True)
class Checked:
    """What is known of a host.

    Attributes
    ----------
    name : str
    address : str
        The one that the job's processes there listen at.
    cores : int
    """

    name: str
    address: str
    cores: int


class _Probe:
    """The probe on one host."""

    def __init__(self, name: str, ssh: str, python: str, directory: str, arguments: Sequence[str]):
        self.name = name
        self.process = subprocess.Popen(
            remote_command(ssh, name, python),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._buffer = b""
        self._errors = b""
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        self.write(header("probe.py", arguments, directory, {}))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors = self.process.stderr.read()

    def write(self, data: bytes) -> None:
        """Send something to it, if it is there."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except OSError:
            pass  # `read` says why

    def read(self, deadline: float) -> Any:
        """Its next line.

        Raises
        ------
        ClusterError
            It ended without one, or none has come by the deadline.
        """
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ClusterError(
                        f"{self.name}: no answer in time; does ssh {self.name} work by itself?"
                    )
                data = self.process.stdout.read1(65536)  # type: ignore[attr-defined]
                if not data:
                    raise ClusterError(f"{self.name}: {self._reason()}")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError:
            text = line[:200].decode(errors="replace")
            raise ClusterError(
                f"{self.name}: it said {text!r}, expected an answer; does a start-up file of the shell print?"
            ) from None

    def _reason(self) -> str:
        code = self.process.wait(_CONNECT_S)
        self._reader.join(_CONNECT_S)
        lines = self._errors.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"the connection ended with exit status {code}"

    def end(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(_CONNECT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                self._reader.join(_CONNECT_S)
                pipe.close()


def check_hosts(
    names: Sequence[str], ssh: str, python: str, directory: str, root: str, interface: str, version: str
) -> list[Checked]:
    """Look at hosts, all at the same time.

    Parameters
    ----------
    names : sequence of str
    ssh, python, directory : str
        How to get there, the interpreter, and the directory that the job runs in there.
    root : str
        The address of this host at which the scheduler is going to listen.
    interface : str
        The one that processes listen on; '' for that through which a host reaches this one.
    version : str
        Of dmod here.

    Raises
    ------
    ClusterError
        Something is wrong; the message has a line for each thing.
    """
    probes: list[_Probe] = []
    with closing(socket.create_server((root, 0))) as listener:
        threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        arguments = [root, str(listener.getsockname()[1]), interface, python, f"{_CONNECT_S:g}"]
        try:
            probes = [_Probe(name, ssh, python, directory, arguments) for name in names]
            return _judge(probes, root, version)
        finally:
            for probe in probes:
                probe.end()


def _judge(probes: Sequence[_Probe], root: str, version: str) -> list[Checked]:
    problems: list[str] = []
    found: list[tuple[_Probe, dict[str, Any]]] = []
    deadline = time.monotonic() + DEADLINE_S
    for probe in probes:
        try:
            said = probe.read(deadline)
        except ClusterError as error:
            problems.append(str(error))
            continue
        wrong = _wrong_with(probe.name, said, root, version)
        problems.extend(wrong)
        if not wrong:
            found.append((probe, said))
    problems.extend(_unreached(found))
    if problems:
        raise ClusterError("the job cannot start:\n  " + "\n  ".join(problems))
    return [Checked(probe.name, said["host"], said["cores"]) for probe, said in found]


def _wrong_with(name: str, said: dict[str, Any], root: str, version: str) -> list[str]:
    """What is wrong with a host by itself."""
    problems = []
    if "error" in said:
        problems.append(f"{name}: {said['error']}; install dmod {version} there, or name its --remote-python")
    elif said["dmod"] != version:
        problems.append(f"{name}: dmod {said['dmod']} is there, {version} here; install the same one")
    if "root" in said:
        problems.append(f"{name} -> this host ({root}): {said['root']}; is a firewall between them?")
    elif "listen" in said:
        problems.append(f"{name}: cannot listen on {said['listen']}")
    return problems


def _unreached(found: Sequence[tuple[_Probe, dict[str, Any]]]) -> list[str]:
    """Who does not reach whom."""
    problems = []
    peers = [[probe.name, said["host"], said["port"]] for probe, said in found]
    for name, host, port in peers:
        try:
            socket.create_connection((host, port), _CONNECT_S).close()
        except OSError as error:
            reason = "timed out" if isinstance(error, TimeoutError) else error.strerror or error
            problems.append(f"this host -> {name} ({host}): {reason}; is a firewall between them?")
    for probe, _ in found:
        probe.write(json.dumps(peers).encode() + b"\n")
    deadline = time.monotonic() + _PEERS_S
    for probe, _ in found:
        try:
            unreached = probe.read(deadline)
        except ClusterError as error:
            problems.append(str(error))
            continue
        problems.extend(
            f"{probe.name} -> {name}: {why}; is a firewall between them?" for name, why in unreached
        )
    return problems


def _answer(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return
