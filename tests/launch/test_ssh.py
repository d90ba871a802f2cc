"""Jobs over several hosts: loopback addresses, or network namespaces where one may make them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmod.base import ClusterError, InvalidArgument
from dmod_launch import preflight
from dmod_launch.hosts import Host, place, read_hosts
from dmod_launch.preflight import check_hosts

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STUB = f"{sys.executable} {HERE / 'ssh.py'}"
PROGRAM = (sys.executable, str(HERE / "programs.py"))
DEADLINE_S = 60


def launcher(directory: Path, hosts: str, *arguments: str, mode: str = "here") -> list[str]:
    hostfile = directory / "hosts"
    hostfile.write_text(hosts)
    first = (sys.executable, "-m", "dmod_launch.cli", "--launcher", "ssh", "-H", str(hostfile))
    return [*first, "--ssh", f"{STUB} {mode}", *arguments]


def environment() -> dict[str, str]:
    base = {k: v for k, v in os.environ.items() if not k.startswith(("DMLC_", "DMOD_"))}
    return base | {"PYTHONPATH": f"{ROOT}:{ROOT}/launch", "OMP_NUM_THREADS": "1"}


def launch(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
    )
    return done.returncode, done.stdout


# ---- hostfiles


def test_hostfile(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# ours\n\nnode1\nme@node2 slots=4 # the big one\n10.0.0.3\n")
    assert read_hosts(tmp_path / "hosts") == [Host("node1"), Host("me@node2", 4), Host("10.0.0.3")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no host in it"),
        ("node1 slot=2", "expected a host, and slots=N"),
        ("node1 slots=0", "slots=N"),
        ("node1\nnode1\n", "line 2: 'node1': named before"),
        ("-oProxyCommand=reboot", "does not begin with a dash"),
    ],
)
def test_a_hostfile_that_makes_no_sense(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        read_hosts(tmp_path / "hosts")


def test_a_hostfile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No such file"):
        read_hosts(tmp_path / "hosts")


def test_slots() -> None:
    hosts = [Host("a", 1), Host("b", 3)]
    workers, servers = place(hosts, 4, 3)
    assert [h.name for h in workers] == ["a", "b", "b", "b"]
    assert [h.name for h in servers] == ["a", "b", "a"]
    with pytest.raises(InvalidArgument, match="slots for 4 workers only"):
        place(hosts, 5, 1)


# ---- what is looked at before a job starts


def check(*names: str, version: str | None = None) -> list[preflight.Checked]:
    import dmod

    expected = version or dmod.__version__
    return check_hosts(names, f"{STUB} here", sys.executable, str(ROOT), "127.0.0.1", "", expected)


def test_hosts_that_are_well() -> None:
    (found,) = check("127.0.0.2")
    assert (found.address, found.cores) == ("127.0.0.1", len(os.sched_getaffinity(0)))


def test_everything_that_is_wrong_is_named() -> None:
    with pytest.raises(ClusterError) as caught:
        check("dead1", "noisy1", version="9.9")
    text = str(caught.value)
    assert "dead1: ssh: connect to host dead1 port 22: Connection refused" in text
    assert "noisy1: it said 'Welcome'" in text


def test_another_version() -> None:
    with pytest.raises(ClusterError, match=r"127.0.0.2: dmod .* is there, 9\.9 here"):
        check("127.0.0.2", version="9.9")


def test_an_interpreter_or_a_directory_that_is_not_there() -> None:
    for python, directory, message in (
        ("/nonexistent/python", str(ROOT), "127.0.0.2: .*not found|127.0.0.2: .*No such file"),
        (sys.executable, "/nonexistent", "dmod-launch: /nonexistent: No such file"),
    ):
        with pytest.raises(ClusterError, match=message):
            check_hosts(["127.0.0.2"], f"{STUB} here", python, directory, "127.0.0.1", "", "0")


def test_an_interface_that_is_not_there() -> None:
    with pytest.raises(ClusterError, match="cannot listen on wlan77"):
        check_hosts(["127.0.0.2"], f"{STUB} here", sys.executable, str(ROOT), "127.0.0.1", "wlan77", "0")


def test_a_host_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "DEADLINE_S", 0.5)
    monkeypatch.setattr(preflight, "_CONNECT_S", 0.5)
    with pytest.raises(ClusterError, match="silent1: no answer in time; does ssh silent1 work by itself"):
        check("silent1")


# ---- jobs


def test_a_job_on_two_hosts(tmp_path: Path) -> None:
    hosts = "127.0.0.2\n127.0.0.3\n"
    code, output = launch(
        launcher(tmp_path, hosts, "-n", "2", "-s", "1", "--env", "EXTRA=a b'c", "--", *PROGRAM, "variables")
    )
    assert code == 0, output
    assert output.count("EXTRA=a b'c") == 2
    assert "DMLC_NUM_WORKER=2 DMLC_NUM_SERVER=1" in output


def test_the_exit_status_of_a_remote_process(tmp_path: Path) -> None:
    code, output = launch(
        launcher(
            tmp_path, "127.0.0.2\n", "-n", "2", "-s", "1", "--timeout", "1", "--", *PROGRAM, "fail", "1", "7"
        )
    )
    assert code == 7
    assert "[launcher] the job failed: worker 1 " in output
    assert "has ended with exit status 7" in output


def test_a_dead_host_ends_it_before_it_starts(tmp_path: Path) -> None:
    code, output = launch(
        launcher(tmp_path, "127.0.0.2\ndead\n", "-n", "2", "-s", "1", "--interface", "lo", "--", "true")
    )
    assert code == 1
    assert "dmod-launch: the job cannot start:\n  dead: ssh: connect" in output


@pytest.mark.parametrize("arguments", [(), ("-H", "hosts", "--launcher", "local")])
def test_options_that_do_not_fit(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "dmod_launch.cli", "--launcher", "ssh", "-n", "1", *arguments, "true"]
    code, output = launch(command)
    assert code == 2
    assert "--hostfile" in output


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_remote_processes_die_with_the_launcher(tmp_path: Path, number: int) -> None:
    command = launcher(tmp_path, "127.0.0.2\n", "-n", "1", "-s", "1", "--", *PROGRAM, "family", str(tmp_path))
    with subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            end = time.monotonic() + DEADLINE_S
            files = [tmp_path / "self0.pid", tmp_path / "child0.pid"]
            while not all(file.exists() for file in files):
                assert time.monotonic() < end
                time.sleep(0.02)
            pids = [int(file.read_text()) for file in files]
            process.send_signal(number)
            process.wait(10)
            end = time.monotonic() + 10
            while any(map(running, pids)):
                assert time.monotonic() < end, "a remote process outlives the launcher"
                time.sleep(0.02)
        finally:
            process.kill()


# ---- network namespaces


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


NETWORK = f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
"""Each test run's own: two may run on one machine at the same time."""


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[str, str]]:
    """Two hosts, NETWORK.2 and NETWORK.3, and this one, NETWORK.1, on one network."""
    names = (f"dmod{os.getpid()}a", f"dmod{os.getpid()}b")
    bridge = f"dmb{os.getpid()}"
    try:
        ip("link", "add", bridge, "type", "bridge")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces need ip and its rights")
    try:
        ip("addr", "add", f"{NETWORK}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, name in enumerate(names, 2):
            inside, outside = f"dmi{os.getpid()}{number}", f"dmo{os.getpid()}{number}"
            ip("netns", "add", name)
            ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
            ip("link", "set", outside, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", inside)
            ip("-n", name, "link", "set", inside, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError):
        _remove(names, bridge)
        pytest.skip("network namespaces need rights that are missing")
    yield names
    _remove(names, bridge)


def _remove(names: tuple[str, ...], bridge: str) -> None:
    for arguments in (*(("netns", "del", name) for name in names), ("link", "del", bridge)):
        subprocess.run(["ip", *arguments], capture_output=True, timeout=10)


def test_a_job_over_a_network(tmp_path: Path, namespaces: tuple[str, str]) -> None:
    interface = f"dmb{os.getpid()}"
    arguments = ("-n", "2", "-s", "2", "--insecure-network")
    hosts = "\n".join(namespaces)
    code, output = launch(
        launcher(tmp_path, hosts, *arguments, "--", *PROGRAM, "train", str(tmp_path), mode="netns")
    )
    assert (code, "name the network interface with --interface" in output) == (2, True), output
    root = ("--interface", interface)
    code, output = launch(launcher(tmp_path, hosts, *arguments, *root, "--", "true", mode="netns"))
    assert code == 1
    assert f"cannot listen on {interface}" in output, "the interface has another name on the hosts"


def test_hosts_that_do_not_reach_each_other(
    namespaces: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dmod

    monkeypatch.setattr(preflight, "_CONNECT_S", 1.0)
    arguments = (f"{STUB} netns", sys.executable, str(ROOT), f"{NETWORK}.1", "", dmod.__version__)
    assert [c.address for c in check_hosts(namespaces, *arguments)] == [f"{NETWORK}.2", f"{NETWORK}.3"]
    first, second = namespaces
    ip("-n", first, "route", "add", "blackhole", f"{NETWORK}.3/32")
    try:
        with pytest.raises(ClusterError) as caught:
            check_hosts(namespaces, *arguments)
    finally:
        ip("-n", first, "route", "del", "blackhole", f"{NETWORK}.3/32")
    text = str(caught.value)
    assert re.search(rf"{first} -> {second}: .*is a firewall between them", text)
    assert f"{second} -> {first}" in text, "answers do not come back either"
    assert "this host ->" not in text
