"""``dmod doctor``: what this machine has for dmod, what is slow or missing, and how to get it.

Every check is a function that returns findings; none changes anything, and a check that fails is a finding.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import threadpoolctl

from dmod.base import MXNetError
from dmod.config import kernel_variables, settings
from dmod.context import num_gpus
from dmod.device.kernels import compiled_kernels
from dmod.device.onednn import onednn
from dmod.device.onednn import version as onednn_version

__all__ = ["Finding", "examine", "report"]

OK, SLOW, MISSING, BAD = "ok", "slow", "missing", "bad"
_MARKS = {OK: "ok  ", SLOW: "slow", MISSING: "none", BAD: "BAD "}
_CORE = ("numpy", "pyzmq", "msgpack", "threadpoolctl")
_EXTRAS = {
    "ray": ("ray", "launching and sweeping on a Ray cluster"),
    "opencv-python-headless": ("image", "reading pictures: mx.image, ImageRecordIter"),
    "matplotlib": ("viz", "curves and plots"),
    "graphviz": ("viz", "mx.viz.plot_network"),
}
_ENOUGH_SHM = 256 << 20
_ENOUGH_FILES = 1024


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes
    ----------
    status : {'ok', 'slow', 'missing', 'bad'}
        'missing' is what dmod does without; 'bad' is what keeps it, or a job, from running.
    subject, found : str
    remedy : str
        What to do, if anything.
    """

    status: str
    subject: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """All findings, in the order in which they are best read."""
    found: list[Finding] = []
    for check in _CHECKS:
        try:
            found.extend(check())
        except Exception as error:  # a doctor who faints helps nobody
            found.append(Finding(BAD, check.__name__.strip("_"), f"{type(error).__name__}: {error}"))
    return found


def report(findings: list[Finding]) -> str:
    """The findings as text."""
    width = max(len(f.subject) for f in findings)
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.status]}  {finding.subject:{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"{'':6}{'':{width}}  -> {finding.remedy}")
    bad = sum(f.status == BAD for f in findings)
    slow = sum(f.status == SLOW for f in findings)
    lines.append("")
    lines.append(
        f"{bad} to mend, {slow} that slow it down"
        if bad or slow
        else "Nothing to mend, nothing slows it down"
    )
    return "\n".join(lines)


def as_dicts(findings: list[Finding]) -> list[dict[str, str]]:
    """The findings as plain values, for JSON."""
    return [asdict(finding) for finding in findings]


# ---- checks


def _versions() -> Iterator[Finding]:
    yield Finding(
        OK, "dmod", f"{_version('dmod') or 'from a source tree'} with Python {platform.python_version()}"
    )
    for package in _CORE:
        version = _version(package)
        if version is None:
            yield Finding(BAD, package, "not installed", f"pip install {package}")
        else:
            yield Finding(OK, package, version)
    version = _version("numba")
    if version is None:
        yield Finding(SLOW, "numba", "not installed: numpy alone computes", "pip install numba")
    else:
        yield Finding(OK, "numba", version)
    for package, (extra, purpose) in _EXTRAS.items():
        version = _version(package)
        if version is None:
            yield Finding(MISSING, package, f"not installed: {purpose}", f'pip install "dmod[{extra}]"')
        else:
            yield Finding(OK, package, version)


def _environment() -> Iterator[Finding]:
    try:
        found = settings()
    except MXNetError as error:
        yield Finding(BAD, "environment", str(error))
        return
    if found.role:
        yield Finding(OK, "environment", f"a {found.role} of a job of {found.num_workers} workers")
    for name, value in kernel_variables().items():
        if name in ("OPENBLAS_CORETYPE", "MKL_DEBUG_CPU_TYPE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
            yield Finding(
                SLOW,
                name,
                f"{value}: chooses kernels in place of the libraries' own choice",
                f"unset {name}, unless it is there for equal bits on unequal machines",
            )
        else:
            yield Finding(OK, name, value)


def _processors() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = _processor_says()
    flags = (said.get("flags") or said.get("Features") or "").split()
    vectors = next((name for name in ("avx512f", "avx2", "avx", "neon", "asimd") if name in flags), "")
    kind = said.get("model name") or platform.machine()
    text = f"{usable} usable of {os.cpu_count()}, {kind}{', ' + vectors if vectors else ''}"
    yield Finding(OK, "processors", text)
    load = os.getloadavg()[0]
    if load > usable:
        yield Finding(
            SLOW,
            "load",
            f"{load:.1f} processes want {usable} processors",
            "end what else computes here, or give each its share: DMOD_NUM_THREADS",
        )
    yield from _jobs(_jobs_here(Path("/proc")), usable)
    yield Finding(OK, "memory", f"{_gib(_memory())} GiB")


def _jobs(threads: dict[str, list[int]], usable: int) -> Iterator[Finding]:
    """Whether the workers of several jobs, each with its numbers of threads, share the processors."""
    if not threads:
        return
    wanted = sum(map(sum, threads.values()))
    workers = sum(map(len, threads.values()))
    count = "1 job" if len(threads) == 1 else f"{len(threads)} jobs"
    text = f"{count} under way here: {workers} workers want {wanted} of {usable} processors"
    if wanted <= usable or (len(threads) == 1 and wanted == workers):
        yield Finding(OK, "jobs", text)
        return
    share = max(1, usable // workers)
    yield Finding(
        SLOW,
        "jobs",
        f"{text}, and threads that wait for each other spin",
        f"start each with DMOD_NUM_THREADS={share}; each alone takes all processors for its own",
    )


def _jobs_here(proc: Path) -> dict[str, list[int]]:
    """The threads of every worker of this user's on this host, by the address of its job's scheduler.

    A worker's keeper and children have its environment too, and count with it.
    """
    found: dict[str, dict[str, int]] = {}
    for path in proc.glob("[0-9]*/environ"):
        try:
            lines = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is another user's
            continue
        environ = dict(line.partition("=")[::2] for line in lines)
        threads = environ.get("DMOD_NUM_THREADS") or environ.get("OMP_NUM_THREADS", "")
        if environ.get("DMLC_ROLE") == "worker" and threads.isdecimal():
            address = f"{environ.get('DMLC_PS_ROOT_URI')}:{environ.get('DMLC_PS_ROOT_PORT')}"
            found.setdefault(address, {})[environ.get("DMLC_WORKER_ID", path.parent.name)] = int(threads)
    return {address: list(workers.values()) for address, workers in found.items()}


def _processor_says() -> dict[str, str]:
    """What Linux tells of the first processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory() -> int:
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _kernels() -> Iterator[Finding]:
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    if not pools:
        yield Finding(
            SLOW, "BLAS", "none that is known: products may be slow", "install numpy from its wheel"
        )
    for pool in pools:
        parts = [str(pool.get(name) or "") for name in ("internal_api", "version", "architecture")]
        yield Finding(OK, "BLAS", f"{' '.join(filter(None, parts))}, {pool['num_threads']} threads")
    yield Finding(OK, "matrix products", f"{_sgemm_rate():.0f} GFLOP/s (512 x 512, float32)")
    if compiled_kernels() is None:
        off = _version("numba") is not None
        yield Finding(
            SLOW,
            "compiled kernels",
            "off: numpy alone computes",
            "unset DMOD_NUMBA, if it is 0; else see what importing numba says"
            if off
            else "pip install numba",
        )
    else:
        yield Finding(OK, "compiled kernels", "numba's")
    yield _convolutions()


def _convolutions() -> Finding:
    if onednn() is not None:
        return Finding(OK, "oneDNN", onednn_version())
    named = settings().onednn
    if named == "0":
        return Finding(
            SLOW, "oneDNN", "switched off (DMOD_ONEDNN=0): convolutions run on BLAS", "unset DMOD_ONEDNN"
        )
    if named:
        found = f"{named} (DMOD_ONEDNN) is not there, or not usable: convolutions run on BLAS"
        return Finding(SLOW, "oneDNN", found, "name a libdnnl.so of version 3, or unset DMOD_ONEDNN")
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        remedy = "pip install onednn-cpu-gomp, which needs the system's libgomp"
    else:
        remedy = "install oneDNN 3, and set DMOD_ONEDNN to its library"
    return Finding(SLOW, "oneDNN", "not found, or not usable: convolutions run on BLAS", remedy)


def _sgemm_rate() -> float:
    a = np.ones((512, 512), np.float32)
    out = np.empty_like(a)
    np.matmul(a, a, out=out)
    best = min(_seconds(lambda: np.matmul(a, a, out=out)) for _ in range(5))
    return 2 * 512**3 / best / 1e9


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _gpus() -> Iterator[Finding]:
    has_driver = shutil.which("nvidia-smi") is not None
    version = next((v for v in map(_version, ("cupy-cuda12x", "cupy-cuda13x", "cupy")) if v), None)
    if version is None:
        status = SLOW if has_driver else MISSING
        yield Finding(
            status,
            "GPUs",
            "CuPy is not installed" + ("" if has_driver else ", and there is no NVIDIA driver"),
            'pip install "dmod[cupy]"' if has_driver else "",
        )
        return
    count = num_gpus()
    if count:
        yield Finding(OK, "GPUs", f"{count}, by CuPy {version}")
    else:
        yield Finding(
            SLOW if has_driver else MISSING,
            "GPUs",
            f"CuPy {version} finds none",
            "does CuPy's CUDA version fit the driver? See nvidia-smi" if has_driver else "",
        )


def _network() -> Iterator[Finding]:
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", 0))
        except OSError as error:
            yield Finding(
                BAD, "loopback", f"cannot listen on 127.0.0.1: {error.strerror}", "ip link set lo up"
            )
        else:
            yield Finding(OK, "loopback", "127.0.0.1 listens")
    name = socket.gethostname()
    try:
        addresses = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)})
        only_local = all(a.startswith("127.") for a in addresses)
        yield Finding(
            OK,
            "host name",
            f"{name} is {', '.join(addresses)}",
            "for jobs over several hosts, name this host's interface (DMLC_INTERFACE)" if only_local else "",
        )
    except OSError:
        yield Finding(
            MISSING, "host name", f"{name} has no address", "add it to /etc/hosts for jobs over several hosts"
        )
    for interface in (i for _, i in socket.if_nameindex()):
        yield Finding(OK, "interface", f"{interface} {_address(interface)}".rstrip())


def _address(interface: str) -> str:
    """The IPv4 address of an interface; '' without one."""
    import fcntl
    import struct

    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            packed = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(packed[20:24])


def _shared_memory() -> Iterator[Finding]:
    path = Path("/dev/shm")
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        yield Finding(
            SLOW,
            "shared memory",
            f"{path}: {error.strerror}",
            "mount a tmpfs there; jobs use sockets until then",
        )
        return
    text = f"{path}: {_gib(usage.free)} of {_gib(usage.total)} GiB free"
    if usage.free < _ENOUGH_SHM:
        yield Finding(
            SLOW,
            "shared memory",
            text,
            "enlarge it (docker run --shm-size=2g): large models fall back to sockets",
        )
    elif not os.access(path, os.W_OK):
        yield Finding(SLOW, "shared memory", f"{path} cannot be written to", "jobs use sockets instead")
    else:
        yield Finding(OK, "shared memory", text)


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _ENOUGH_FILES:
        most = hard if hard != resource.RLIM_INFINITY else 4 * _ENOUGH_FILES
        remedy = f"ulimit -n {most}"
        if most < _ENOUGH_FILES:  # only root may raise it
            remedy = f"raise the hard limit, {most}: limits.conf, or docker run --ulimit nofile=4096"
        yield Finding(SLOW, "open files", f"at most {soft}: a server with many workers needs more", remedy)
    else:
        yield Finding(OK, "open files", f"at most {soft}")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield Finding(OK, "address space", f"at most {_gib(limit)} GiB (ulimit -v)")


_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _versions,
    _environment,
    _processors,
    _kernels,
    _gpus,
    _network,
    _shared_memory,
    _limits,
)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gib(nbytes: float) -> str:
    return f"{nbytes / (1 << 30):.1f}"
