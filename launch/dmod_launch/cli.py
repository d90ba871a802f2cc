"""The command `dmod-launch`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from dmod.base import ClusterError, InvalidArgument
from dmod.config import settings
from dmod_launch.chaos import Saboteur
from dmod_launch.child import Child, start_child
from dmod_launch.hosts import read_hosts
from dmod_launch.job import Program, programs
from dmod_launch.ray_launch import RAY_ONLY, add_ray_options, launch, ray_options
from dmod_launch.remote import SSH
from dmod_launch.restart import Announcer, run_with_restarts
from dmod_launch.ssh import SshOptions, ssh_programs
from dmod_launch.supervisor import Supervisor

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dmod-launch",
        usage="dmod-launch -n WORKERS -s SERVERS [options] [--] COMMAND ...",
        description="Start a job: WORKERS processes that run COMMAND, SERVERS that keep the parameters, and "
        "a scheduler. The exit status is 0, or that of the first process that failed.",
    )
    parser.add_argument("-n", "--num-workers", type=int, required=True, metavar="WORKERS")
    parser.add_argument("-s", "--num-servers", type=int, metavar="SERVERS", help="default: WORKERS")
    parser.add_argument(
        "--launcher",
        default="local",
        choices=["local", "ssh", "ray"],
        help="where the processes run: on this host (default), on those of a hostfile, by ssh, or on a Ray "
        "cluster",
    )
    parser.add_argument(
        "-H",
        "--hostfile",
        metavar="FILE",
        help="for ssh: a host a line, such as node1 or me@node2 slots=4, which takes 4 workers at most",
    )
    parser.add_argument(
        "--interface",
        default="",
        metavar="NAME",
        help="for ssh: the network interface that all processes listen on, such as eth0; default: the one "
        "by which a host reaches this one",
    )
    parser.add_argument(
        "--ssh", default=SSH, metavar="COMMAND", help="runs a shell command on a host; default: %(default)s"
    )
    parser.add_argument(
        "--remote-python", default="", metavar="PATH", help="for ssh: the interpreter on the hosts"
    )
    parser.add_argument(
        "--remote-dir",
        default="",
        metavar="DIR",
        help="for ssh and ray: where COMMAND runs; default: here, or in a copy that Ray takes to its nodes",
    )
    add_ray_options(parser)
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable for all processes; may be repeated",
    )
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="start a job that has failed again, up to N times; a training with a checkpoint directory goes "
        "on from its newest checkpoint (default: 0)",
    )
    parser.add_argument(
        "--chaos",
        type=float,
        metavar="S",
        help="to see a job recover: kill a random process with signal 9, on average S seconds after each "
        "start, as often as --max-restarts allows",
    )
    parser.add_argument("--chaos-seed", type=int, metavar="SEED", help="make --chaos choose the same again")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help="seconds after which a silent process counts as dead (default: 10, or DMOD_TIMEOUT_S)",
    )
    parser.add_argument(
        "--insecure-network",
        action="store_true",
        help="permit addresses that other hosts can reach, without authentication",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what every worker runs")
    return parser


def _extra(arguments: argparse.Namespace) -> dict[str, str]:
    extra = {}
    for text in arguments.env:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidArgument(f"--env {text}: expected NAME=VALUE")
        extra[name] = value
    if arguments.timeout is not None:
        extra["DMOD_TIMEOUT_S"] = f"{arguments.timeout:g}"
    if arguments.insecure_network:
        extra["DMOD_INSECURE_NETWORK"] = "1"
    return extra


def _refuse(arguments: argparse.Namespace, launcher: str, *options: str) -> None:
    """Refuse options that are for another launcher."""
    for option in options:
        if getattr(arguments, option):
            raise InvalidArgument(f"--{option.replace('_', '-')} needs --launcher {launcher}")


def _starter(
    arguments: argparse.Namespace, command: list[str], num_servers: int
) -> Callable[[int], list[Program]]:
    """What makes the processes of the job for its n-th restart."""
    workers, extra = arguments.num_workers, _extra(arguments)
    if arguments.launcher == "local":
        _refuse(arguments, "ssh", "hostfile", "interface", "remote_python", "remote_dir")
        return lambda restart: programs(
            command, workers, num_servers, os.environ, {**extra, "DMOD_RESTART": str(restart)}, bind=True
        )
    if not arguments.hostfile:
        raise InvalidArgument("--launcher ssh needs --hostfile FILE, with a host a line")
    options = SshOptions(
        tuple(read_hosts(arguments.hostfile)),
        arguments.interface,
        arguments.ssh,
        arguments.remote_python,
        arguments.remote_dir,
    )
    start = ssh_programs(options, command, workers, num_servers, os.environ, extra)
    return lambda restart: start({"DMOD_RESTART": str(restart)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("expected a COMMAND for the workers, such as: python train.py --kv-store dist_sync")
    num_servers = arguments.num_workers if arguments.num_servers is None else arguments.num_servers
    if arguments.max_restarts < 0:
        parser.error(f"--max-restarts {arguments.max_restarts}: expected 0 or more")
    if arguments.chaos is not None and not arguments.chaos > 0:
        parser.error(f"--chaos {arguments.chaos:g}: expected seconds, more than 0")
    colour = sys.stdout.isatty() and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    say = Announcer(sys.stderr.buffer, colour)
    saboteur = None
    if arguments.chaos is not None:
        saboteur = Saboteur(arguments.chaos, arguments.max_restarts, arguments.chaos_seed)

    def supervise(timeout_s: float, at_once: bool, starter: Callable[[Program], Child]) -> Supervisor:
        sinks = sys.stdout.buffer, sys.stderr.buffer
        return Supervisor(timeout_s, *sinks, colour, at_once, saboteur, starter)

    try:
        if arguments.launcher == "ray":
            _refuse(arguments, "ssh", "hostfile", "interface", "remote_python")
            extra = _extra(arguments)
            timeout_s = settings(dict(os.environ) | extra).timeout_s
            return launch(
                arguments.address,
                ray_options(arguments),
                command,
                arguments.num_workers,
                num_servers,
                os.environ,
                extra,
                lambda at_once, starter: supervise(timeout_s, at_once, starter),
                arguments.max_restarts,
                say,
            )
        _refuse(arguments, "ray", *RAY_ONLY)
        start = _starter(arguments, command, num_servers)
        first = start(0)
    except InvalidArgument as error:
        parser.error(str(error))
    except ClusterError as error:
        print(f"dmod-launch: {error}", file=sys.stderr)
        return 1
    timeout_s = settings(first[0].environment).timeout_s
    return run_with_restarts(
        start, lambda at_once: supervise(timeout_s, at_once, start_child), arguments.max_restarts, say
    )


if __name__ == "__main__":
    sys.exit(main())
