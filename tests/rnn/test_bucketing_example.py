"""The example of a language model learns its grammar, with every kind of cell and with two workers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dmod as mx

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "lstm_bucketing.py"
LAUNCH = [str(Path(sys.executable).with_name("dmod-launch")), "-n", "2", "-s", "1", "--"]


def run(*options: str, before: list[str] | None = None) -> str:
    command = [*(before or []), sys.executable, str(EXAMPLE), "--num-epochs", "3", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "options", [[], ["--num-layers", "2", "--dropout", "0.1"], ["--fused"]], ids=["plain", "deep", "fused"]
)
def test_perplexity_comes_near_that_of_the_grammar(options: list[str], tmp_path: Path) -> None:
    prefix = str(tmp_path / "model")
    printed = run("--max-perplexity", "5", "--model-prefix", prefix, *options)
    assert re.search(r"^21 words, 1 workers: perplexity \d\.\d\d$", printed, re.MULTILINE)
    layers = 2 if "--num-layers" in options else 1
    cell = mx.rnn.FusedRNNCell(32, layers)
    _, args, _ = mx.rnn.load_rnn_checkpoint(cell, prefix, 3)
    assert args.keys() == {"lstm_parameters", "embed_weight", "pred_weight", "pred_bias"}


def test_two_workers_whose_buckets_differ_learn_together() -> None:
    printed = run("--kv-store", "dist_sync", "--max-perplexity", "6", before=LAUNCH)
    found = re.findall(r"21 words, 2 workers: perplexity (\d\.\d\d)", printed)
    assert len(found) == 2


def test_a_text_of_ones_own_may_be_learned(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the dog barks\n\na cat sees the old dog\n" * 64)
    (tmp_path / "other.txt").write_text("the dog barks\nthe dog purrs\n" * 32)
    options = ["--data", str(text), "--validation", str(tmp_path / "other.txt"), "--batch-size", "8"]
    assert re.search(r"^10 words, 1 workers: perplexity", run(*options), re.MULTILINE)
