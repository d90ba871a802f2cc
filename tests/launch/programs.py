"""What the workers of the tests in this directory run: ``programs.py NAME ARGUMENTS...``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def say(count: str) -> None:
    """`count` lines to each stream, and one without an end."""
    for i in range(int(count)):
        print(f"out {i} " + "x" * (i % 300))
        print(f"err {i}", file=sys.stderr)
    sys.stdout.write("partial")


def variables() -> None:
    for names in (
        "DMLC_ROLE DMLC_NUM_WORKER DMLC_NUM_SERVER DMLC_RANK",
        "OMP_NUM_THREADS DMOD_TIMEOUT_S EXTRA",
    ):
        print(" ".join(f"{name}={os.environ.get(name)}" for name in names.split()))


def fail(rank: str, how: str) -> None:
    """Worker `rank` ends with an exit status or, if `how` is negative, by a signal; the others sleep."""
    if os.environ["DMLC_WORKER_ID"] != rank:
        time.sleep(600)
    if int(how) < 0:
        os.kill(os.getpid(), -int(how))
        time.sleep(600)
    sys.exit(int(how))


def family(directory: str, stubborn: str = "") -> None:
    """Ignores polite signals if it is stubborn, and has a child; both pids go to files."""
    if stubborn:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=bool(stubborn)
    )
    rank = os.environ["DMLC_WORKER_ID"]
    for name, pid in (("self", os.getpid()), ("child", child.pid)):
        Path(directory, f"{name}{rank}.tmp").write_text(str(pid))
        Path(directory, f"{name}{rank}.tmp").rename(Path(directory, f"{name}{rank}.pid"))
    time.sleep(600)


def train(directory: str) -> None:
    from dmod.kvstore import create
    from dmod.ndarray.ndarray import ones

    kv, out = create("dist_sync"), ones((2,))
    kv.init("w", out)
    kv.pushpull("w", out)
    print(f"sum {out.asnumpy()[0]:g} of {kv.num_workers}")


def for_ever() -> None:
    """Rounds that end only when something happens."""
    from dmod.kvstore import create
    from dmod.ndarray.ndarray import ones

    kv, out = create("dist_sync"), ones((2,))
    kv.init("w", out)
    kv.pushpull("w", ones((2,)), out=out)
    print(f"pid {os.getpid()}")
    while True:
        kv.pushpull("w", ones((2,)), out=out)


def join_or_fail() -> None:
    """Worker 1 never joins."""
    from dmod.kvstore import create

    if os.environ["DMLC_WORKER_ID"] == "1":
        sys.exit(4)
    create("dist_sync")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
