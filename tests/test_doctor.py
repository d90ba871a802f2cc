"""``dmod doctor`` finds what is there, and says what to do about what is not."""

from __future__ import annotations

import json
import platform
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from dmod import doctor
from dmod.__main__ import main
from dmod.doctor import BAD, MISSING, OK, SLOW, Finding


def find(subject: str) -> Finding:
    return next(f for f in doctor.examine() if f.subject == subject)


def test_it_ends_well_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for subject in (
        "numpy",
        "BLAS",
        "compiled kernels",
        "oneDNN",
        "GPUs",
        "loopback",
        "shared memory",
        "open files",
    ):
        assert subject in said


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"status", "subject", "found", "remedy"} == set(findings[0])


def test_kernels_that_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert find("OPENBLAS_CORETYPE").status == SLOW


def test_without_numba(without_numba: None) -> None:
    assert find("compiled kernels").status == SLOW


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package in ("ray", "msgpack", "numba"):
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert find("ray").status == MISSING
    assert 'pip install "dmod[ray]"' in find("ray").remedy
    assert find("msgpack").status == BAD
    assert find("numba").status == SLOW  # dmod does without
    assert main(["doctor"]) == 1


def test_little_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(64 << 20, 0, 64 << 20))
    assert find("shared memory").status == SLOW
    assert "--shm-size" in find("shared memory").remedy


def test_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda what: (256, 4096))
    assert find("open files").remedy == "ulimit -n 4096"


def test_few_open_files_that_the_user_cannot_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda what: (256, 256))
    assert find("open files").remedy.startswith("raise the hard limit, 256")


def test_no_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    none = doctor.resource.RLIM_INFINITY
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda what: (256, none))
    assert find("open files").remedy == "ulimit -n 4096"


@pytest.mark.parametrize(
    ("named", "found", "remedy"),
    [
        ("0", "switched off (DMOD_ONEDNN=0)", "unset DMOD_ONEDNN"),
        ("/no/libdnnl.so", "/no/libdnnl.so (DMOD_ONEDNN) is not there", "name a libdnnl.so"),
        ("", "not found", "DMOD_ONEDNN" if platform.machine() != "x86_64" else "pip install onednn-cpu-gomp"),
    ],
)
def test_without_onednn(named: str, found: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMOD_ONEDNN", named)
    monkeypatch.setattr(doctor, "onednn", lambda: None)
    finding = find("oneDNN")
    assert finding.status == SLOW
    assert finding.found.startswith(found)
    assert remedy in finding.remedy


def test_a_setting_that_does_not_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMOD_TIMEOUT_S", "soon")
    found = find("environment")
    assert found.status == BAD
    assert "DMOD_TIMEOUT_S" in found.found


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise OSError("no such thing")

    monkeypatch.setattr(doctor.socket, "if_nameindex", broken)
    assert [f.found for f in doctor.examine() if f.status == BAD] == ["OSError: no such thing"]
    assert any(f.status == OK for f in doctor.examine())


def test_jobs_side_by_side_that_want_more_processors_than_there_are(tmp_path: Path) -> None:
    def worker(pid: int, port: int, **environ: object) -> None:
        lines = {"DMLC_ROLE": "worker", "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": port, **environ}
        (tmp_path / str(pid)).mkdir()
        text = "".join(f"{name}={value}\0" for name, value in lines.items())
        (tmp_path / str(pid) / "environ").write_text(text)

    assert list(doctor._jobs(doctor._jobs_here(tmp_path), 4)) == []
    for pid in (10, 11):
        worker(pid, 9091, DMOD_NUM_THREADS=2, DMLC_WORKER_ID=pid)
    worker(14, 9091, DMOD_NUM_THREADS=2, DMLC_WORKER_ID=10)  # a child of the first one
    worker(12, 9091, DMLC_ROLE="server", DMOD_NUM_THREADS=2)
    (tmp_path / "13").mkdir()  # one that has just ended
    [alone] = doctor._jobs(doctor._jobs_here(tmp_path), 4)
    assert alone.status == OK and "1 job under way here: 2 workers want 4 of 4 processors" in alone.found
    for pid in (20, 21):
        worker(pid, 9092, OMP_NUM_THREADS=2)
    [both] = doctor._jobs(doctor._jobs_here(tmp_path), 4)
    assert both.status == SLOW and "2 jobs under way here: 4 workers want 8 of 4 processors" in both.found
    assert "DMOD_NUM_THREADS=1" in both.remedy
