"""Two workers compute the bits of one process on two devices, however they are connected."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.cluster import Cluster

PROGRAM = Path(__file__).with_name("program.py")
# Equal threads per device are what equal bits need; small units make several of these arrays.
SETTINGS = {"DMOD_NUM_THREADS": 1, "DMOD_UNIT_BYTES": 2048}


def read(path: Path) -> dict[str, bytes]:
    with np.load(path) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files}


def run_local(folder: Path, **settings: object) -> dict[str, bytes]:
    with Cluster(folder, 1, 1, **SETTINGS, **settings) as cluster:
        cluster.start("alone", (sys.executable, str(PROGRAM), "local", str(folder / "local.npz")))
        cluster.end_well()
    return read(folder / "local.npz")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return run_local(tmp_path_factory.mktemp("reference"))


def test_the_program_trains_something(reference: dict[str, bytes]) -> None:
    assert {"fc1_weight", "bn1_gamma", "bn1_moving_mean", "bn2_moving_var"} <= reference.keys()
    assert np.isfinite(np.frombuffer(reference["fc1_weight"], "float32")).all()
    assert np.frombuffer(reference["bn1_moving_mean"], "float32").any()


@pytest.mark.parametrize("on_kvstore", ["1", "0"])
def test_one_process_repeats_bit_for_bit(
    on_kvstore: str, reference: dict[str, bytes], tmp_path: Path
) -> None:
    assert run_local(tmp_path, DMOD_UPDATE_ON_KVSTORE=on_kvstore) == reference


# Every pair of the first three choices occurs.
@pytest.mark.parametrize(
    ("transport", "servers", "on_kvstore", "overlap"),
    [
        ("tcp", "1", "1", "0"),
        ("tcp", "3", "0", "1"),
        ("ipc", "1", "0", "0"),
        ("ipc", "3", "1", "1"),
        ("shm", "1", "1", "1"),
        ("shm", "3", "0", "0"),
    ],
)
def test_two_workers_compute_the_bits_of_two_devices(
    transport: str, servers: str, on_kvstore: str, overlap: str, reference: dict[str, bytes], tmp_path: Path
) -> None:
    choices = {"DMOD_TRANSPORT": transport, "DMOD_UPDATE_ON_KVSTORE": on_kvstore, "DMOD_OVERLAP": overlap}
    with Cluster(tmp_path, 2, int(servers), **SETTINGS, **choices) as cluster:
        cluster.run_script(PROGRAM, "dist_sync", tmp_path / "{rank}.npz")
    for rank in range(2):
        found = read(tmp_path / f"{rank}.npz")
        assert found.keys() == reference.keys()
        assert [name for name in found if found[name] != reference[name]] == []
