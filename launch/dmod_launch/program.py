"""One process of a job, as all know it that start processes; imports nothing of dmod, which takes long."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Program", "Remote"]


@dataclass(frozen=True)
class Remote:
    """Another host, and how a program runs there.

    Attributes
    ----------
    host : str
        As ssh knows it.
    ssh : str
        The command that runs a shell command there.
    python : str
        The interpreter there.
    directory : str
        Where the program runs.
    """

    host: str
    ssh: str
    python: str
    directory: str


@dataclass(frozen=True)
class Program:
    """One process of a job.

    Attributes
    ----------
    role : str
        'worker', 'server' or 'scheduler'.
    rank : int or None
        Its number among those of its role; None for the scheduler.
    command : tuple of str
    environment : dict of str to str
        All of it; on another host, what is added to the environment there.
    remote : Remote or None
        The host that it runs on, if that is another one.
    directory : str
        Where it runs; '' for the launcher's.
    channel : bool
        Whether it exchanges messages with who has started it.
    """

    role: str
    rank: int | None
    command: tuple[str, ...]
    environment: dict[str, str]
    remote: Remote | None = None
    directory: str = ""
    channel: bool = False

    @property
    def name(self) -> str:
        """Such as 'worker 0'."""
        return self.role if self.rank is None else f"{self.role} {self.rank}"
