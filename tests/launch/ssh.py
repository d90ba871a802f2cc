"""Stands in for ssh in tests: ``ssh.py MODE HOST COMMAND`` runs a shell command as if on another host.

With MODE 'here' the hosts are loopback addresses of this one; with 'netns' they are network namespaces. Hosts
whose names begin with 'dead', 'noisy' and 'bare' are what they are called.
"""

from __future__ import annotations

import os
import sys
import time


def main(mode: str, host: str, command: str) -> None:
    if host.startswith("dead"):
        sys.exit(f"ssh: connect to host {host} port 22: Connection refused")
    if host.startswith("silent"):
        time.sleep(600)
    if host.startswith("noisy"):
        command = f"echo Welcome; {command}"
    if host.startswith("bare"):
        os.environ["PYTHONPATH"] = "/nonexistent"
        command = f"PYTHONSAFEPATH=1 {command}"
    shell = ["sh", "-c", command]
    if mode == "netns":
        shell = ["ip", "netns", "exec", host, *shell]
    os.execvp(shell[0], shell)


if __name__ == "__main__":
    main(*sys.argv[1:])
