"""The examples learn what they claim to, in one process and in three."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.cluster.cluster import Cluster, run_python
from tests.seeds.documents import write_letters

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TRAIN_DIGITS = EXAMPLES / "train_digits.py"
LAUNCH = ("-m", "dmod_launch", "-n", "2", "-s", "1", "--", sys.executable)


def test_digits_reach_their_accuracy_and_leave_model_and_curve(tmp_path: Path) -> None:
    prefix = str(tmp_path / "new" / "digits")
    program = (TRAIN_DIGITS, "--min-accuracy", "0.96", "--model-prefix", prefix)
    run_python(tmp_path, *program, "--num-epochs", "15")
    run_python(tmp_path, *program, "--load-epoch", "15")
    assert Path(f"{prefix}-symbol.json").exists()
    assert Path(f"{prefix}-0020.params").exists()
    curve = json.loads(Path(f"{prefix}-curve.json").read_text())
    assert list(curve) == [str(epoch) for epoch in range(20)]
    assert curve["19"]["train-cross-entropy"] < 0.1 < curve["0"]["train-cross-entropy"]
    assert Path(f"{prefix}-curve.png").stat().st_size > 0


def test_digits_reach_their_accuracy_with_two_workers(tmp_path: Path) -> None:
    prefix = str(tmp_path / "digits")
    options = ["--kv-store", "dist_sync", "--min-accuracy", "0.96", "--model-prefix", prefix]
    assert "2 workers" in run_python(tmp_path, *LAUNCH, TRAIN_DIGITS, *options)
    assert Path(f"{prefix}-0020.params").exists()


def test_letters_are_read_from_a_file_in_ucis_format(tmp_path: Path) -> None:
    write_letters(tmp_path / "letter-recognition.data", rows=4000)
    data = ["--data", str(tmp_path / "letter-recognition.data")]
    options = ["--num-epochs", "5", "--network", "mlp-bn", "--min-accuracy", "0.9"]
    run_python(tmp_path, TRAIN_DIGITS, *data, *options)


def test_pictures_from_records_are_learnt_by_two_workers(tmp_path: Path) -> None:
    options = ["--num-pictures", "400", "--size", "24", "--num-epochs", "4", "--threads", "1"]
    options += ["--kv-store", "dist_sync", "--min-accuracy", "0.5"]
    with Cluster(tmp_path, 2, 1) as cluster:
        out = "".join(cluster.run_script(EXAMPLES / "train_pictures.py", *options))
    assert "shapes_train.rec: 320 records, 0 skipped" in out and "(dist_sync, 2 workers)" in out
