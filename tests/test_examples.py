"""The examples learn what they claim to, in one process and in three."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.seeds.documents import write_letters

ROOT = Path(__file__).resolve().parent.parent
TRAIN_DIGITS = [sys.executable, str(ROOT / "examples" / "train_digits.py")]
LAUNCH = [str(Path(sys.executable).with_name("dmod-launch")), "-n", "2", "-s", "1", "--"]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_digits_reach_their_accuracy_and_leave_model_and_curve(tmp_path: Path) -> None:
    prefix = str(tmp_path / "new" / "digits")
    run([*TRAIN_DIGITS, "--min-accuracy", "0.96", "--model-prefix", prefix, "--num-epochs", "15"])
    run([*TRAIN_DIGITS, "--min-accuracy", "0.96", "--model-prefix", prefix, "--load-epoch", "15"])
    assert Path(f"{prefix}-symbol.json").exists()
    assert Path(f"{prefix}-0020.params").exists()
    curve = json.loads(Path(f"{prefix}-curve.json").read_text())
    assert list(curve) == [str(epoch) for epoch in range(20)]
    assert curve["19"]["train-cross-entropy"] < 0.1 < curve["0"]["train-cross-entropy"]
    assert Path(f"{prefix}-curve.png").stat().st_size > 0


def test_digits_reach_their_accuracy_with_two_workers(tmp_path: Path) -> None:
    prefix = str(tmp_path / "digits")
    options = ["--kv-store", "dist_sync", "--min-accuracy", "0.96", "--model-prefix", prefix]
    assert "2 workers" in run([*LAUNCH, *TRAIN_DIGITS, *options])
    assert Path(f"{prefix}-0020.params").exists()


def test_letters_are_read_from_a_file_in_ucis_format(tmp_path: Path) -> None:
    write_letters(tmp_path / "letter-recognition.data", rows=4000)
    data = ["--data", str(tmp_path / "letter-recognition.data")]
    run([*TRAIN_DIGITS, *data, "--num-epochs", "5", "--network", "mlp-bn", "--min-accuracy", "0.9"])


def test_pictures_from_records_are_learnt_by_two_workers(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "examples" / "train_pictures.py")]
    options = ["--num-pictures", "400", "--size", "24", "--num-epochs", "4", "--threads", "1"]
    out = run([*LAUNCH, *program, *options, "--kv-store", "dist_sync", "--min-accuracy", "0.5"])
    assert "shapes_train.rec: 320 records, 0 skipped" in out and "(dist_sync, 2 workers)" in out
