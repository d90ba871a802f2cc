"""Which hosts a job runs on, and what runs where."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from dmod.base import InvalidArgument

__all__ = ["Host", "place", "read_hosts"]


@dataclass(frozen=True)
class Host:
    """A line of a hostfile.

    Attributes
    ----------
    name : str
        As ssh knows it: an address, a name, an alias, with a user before it if need be.
    slots : int or None
        How many workers it takes at most.
    """

    name: str
    slots: int | None = None


def read_hosts(path: str | os.PathLike[str]) -> list[Host]:
    """The hosts of a hostfile: one a line, such as ``node1`` or ``me@node2 slots=4``; # begins a comment.

    Raises
    ------
    InvalidArgument
        The file cannot be read, has no host, names one twice, or a line makes no sense.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"hostfile {path}: {getattr(error, 'strerror', None) or error}") from None
    hosts: list[Host] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"hostfile {path}, line {number}: {line.strip()!r}"
        slots = None
        for word in words[1:]:
            name, _, value = word.partition("=")
            if name != "slots" or not value.isdigit() or int(value) < 1:
                raise InvalidArgument(f"{where}: expected a host, and slots=N if need be")
            slots = int(value)
        if words[0].startswith("-"):
            raise InvalidArgument(f"{where}: a host's name does not begin with a dash")
        if words[0] in (host.name for host in hosts):
            raise InvalidArgument(f"{where}: named before; give it slots=N for several workers")
        hosts.append(Host(words[0], slots))
    if not hosts:
        raise InvalidArgument(f"hostfile {path}: no host in it; expected one a line")
    return hosts


def place(hosts: Sequence[Host], num_workers: int, num_servers: int) -> tuple[list[Host], list[Host]]:
    """The hosts of the workers and of the servers, by rank: in turns, as far as slots allow.

    Raises
    ------
    InvalidArgument
        There are not slots enough.

    Examples
    --------
    >>> workers, servers = place([Host('a'), Host('b', 1)], 3, 1)
    >>> [host.name for host in workers], [host.name for host in servers]
    (['a', 'b', 'a'], ['a'])
    """
    counts = dict.fromkeys(hosts, 0)
    workers: list[Host] = []
    while len(workers) < num_workers:
        free = [host for host in hosts if host.slots is None or counts[host] < host.slots]
        if not free:
            raise InvalidArgument(
                f"-n {num_workers}: the hosts have slots for {len(workers)} workers only; add hosts or slots"
            )
        least = min(counts[host] for host in free)
        host = next(host for host in free if counts[host] == least)
        counts[host] += 1
        workers.append(host)
    return workers, [hosts[rank % len(hosts)] for rank in range(num_servers)]
