"""Whom a scheduler lets take part in its job, and who is still missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dmod.kvstore.actions import Peer
from dmod.kvstore.messages import Join

__all__ = ["Admission", "Node"]


@dataclass(eq=False)
class Node:
    """A process that has asked to join, as its scheduler knows it.

    Attributes
    ----------
    peer : Peer
        Its connection.
    join : Join
    rank : int or None
        None if it is not chosen yet.
    heard : float
        When it last said something.
    left : bool
        Whether nothing more is to be expected of it.
    knock : float
        When to look whether it can be reached.
    doubted_until : float
        Until then, if it cannot be reached, it is dead.
    """

    peer: Peer
    join: Join
    rank: int | None
    heard: float
    left: bool = False
    knock: float = float("inf")
    doubted_until: float = float("-inf")

    @property
    def name(self) -> str:
        """Who that is, for people."""
        return f"{self.join.role} {self.rank} (pid {self.join.pid} on {self.join.host})"


class Admission:
    """What a job asks of those who join.

    Parameters
    ----------
    job, version : str
        What every Join must agree with.
    sizes : dict of str to int
        How many processes of each role there are.
    allow_mixed : bool
        Admit workers whose fingerprints differ.
    """

    def __init__(self, job: str, version: str, sizes: dict[str, int], allow_mixed: bool):
        self._job, self._version, self._sizes, self._allow_mixed = job, version, sizes, allow_mixed

    def objection(self, join: Join, nodes: Iterable[Node]) -> str:
        """Why a process cannot join those who are there, `nodes`; '' if it can."""
        if join.job != self._job:
            return f"job {join.job!r}, and this is the scheduler of {self._job!r}; DMOD_JOB must be the same"
        if join.version != self._version:
            return self.other_version(join.version)
        sizes = {"worker": join.num_workers, "server": join.num_servers}
        for role, name in (("worker", "DMLC_NUM_WORKER"), ("server", "DMLC_NUM_SERVER")):
            if sizes[role] != self._sizes[role]:
                ours = self._sizes[role]
                return f"{name}={sizes[role]}, and the scheduler has {ours}; set the same everywhere"
        alike = [node for node in nodes if node.join.role == join.role]
        return self._rank_objection(join, alike) or self._fingerprint_objection(join, alike)

    def other_version(self, theirs: str) -> str:
        """Why a process with version `theirs` cannot join."""
        ours = self._version
        return f"dmod {theirs}, and the scheduler has {ours}; install the same version of dmod on all hosts"

    def missing(self, nodes: Iterable[Node]) -> tuple[str, ...]:
        """Who has not joined, by rank where that is certain."""
        missing: list[str] = []
        ranks: dict[str, list[int | None]] = {role: [] for role in self._sizes}
        for node in nodes:
            ranks[node.join.role].append(node.rank)
        for role, size in self._sizes.items():
            free = [rank for rank in range(size) if rank not in ranks[role]]
            unranked = ranks[role].count(None)
            if unranked == 0:
                missing += [f"{role} {rank}" for rank in free][:64]
            elif len(free) > unranked:
                missing.append(f"{len(free) - unranked} {role}{'s' * (len(free) - unranked > 1)}")
        return tuple(missing)

    def _rank_objection(self, join: Join, alike: list[Node]) -> str:
        size = self._sizes[join.role]
        if join.rank is not None and join.rank >= size:
            return f"{join.role} {join.rank}: ranks are 0 to {size - 1}"
        for node in alike:
            if node.rank is not None and node.rank == join.rank:
                return f"there is a {node.name} already; give every process another rank, or end the old one"
        return f"the job has its {size} {join.role}{'s' * (size > 1)} already" if len(alike) >= size else ""

    def _fingerprint_objection(self, join: Join, alike: list[Node]) -> str:
        if join.role != "worker" or self._allow_mixed or not alike:
            return ""
        first = alike[0].join
        ours, theirs = join.fingerprint, first.fingerprint
        for name in sorted(ours.keys() | theirs.keys()):
            a, b = ours.get(name, "nothing"), theirs.get(name, "nothing")
            if a != b:
                who = f"the worker with pid {first.pid} on {first.host}"
                return (
                    f"{name} is {a!r} here, but {b!r} in {who}: results would not be reproducible; "
                    "make them equal, or set DMOD_ALLOW_MIXED=1"
                )
        return ""
