"""``python -m dmod.kvstore``: be what ``DMLC_ROLE`` names, server or scheduler, until the job is over."""

from __future__ import annotations

import signal
import sys

from dmod.base import MXNetError
from dmod.config import settings
from dmod.kvstore.scheduler import run_scheduler
from dmod.kvstore.server import run_server

__all__ = ["main"]


class _Signals:
    """Notes SIGINT and SIGTERM, so that the others are told before this process ends."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        if self.number:
            raise SystemExit(128 + number)  # the second one is meant
        self.number = number

    def __call__(self) -> str:
        return f"ended by {signal.Signals(self.number).name}" if self.number else ""


def main() -> int:
    """Serve; returns the exit status: 0 when all workers have left, 1 when the job has failed."""
    signals = _Signals()
    role = ""
    try:
        config = settings()
        role = config.role
        if role == "scheduler":
            run_scheduler(config, stopped=signals)
        elif role == "server":
            run_server(config, stopped=signals)
        else:
            print(
                f"python -m dmod.kvstore: DMLC_ROLE is {role or 'not set'}: expected server or scheduler; "
                "dmod-launch -n WORKERS -s SERVERS -- COMMAND starts them all",
                file=sys.stderr,
            )
            return 2
    except MXNetError as error:
        print(f"dmod {role or 'kvstore'}: {error}", file=sys.stderr)
        return 128 + signals.number if signals.number else 1
    return 128 + signals.number if signals.number else 0


if __name__ == "__main__":
    sys.exit(main())
