"""The example of a language model learns its grammar, with every kind of cell and with two workers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dmod as mx
from tests.cluster.cluster import Cluster, run_python

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "lstm_bucketing.py"
THREE_EPOCHS = (EXAMPLE, "--num-epochs", "3")


@pytest.mark.parametrize(
    "options", [[], ["--num-layers", "2", "--dropout", "0.1"], ["--fused"]], ids=["plain", "deep", "fused"]
)
def test_perplexity_comes_near_that_of_the_grammar(options: list[str], tmp_path: Path) -> None:
    prefix = str(tmp_path / "model")
    printed = run_python(tmp_path, *THREE_EPOCHS, "--max-perplexity", "5", "--model-prefix", prefix, *options)
    assert re.search(r"^21 words, 1 workers: perplexity \d\.\d\d$", printed, re.MULTILINE)
    layers = 2 if "--num-layers" in options else 1
    cell = mx.rnn.FusedRNNCell(32, layers)
    _, args, _ = mx.rnn.load_rnn_checkpoint(cell, prefix, 3)
    assert args.keys() == {"lstm_parameters", "embed_weight", "pred_weight", "pred_bias"}


def test_two_workers_whose_buckets_differ_learn_together(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 1) as cluster:
        printed = cluster.run_script(*THREE_EPOCHS, "--kv-store", "dist_sync", "--max-perplexity", "6")
    assert all(re.search(r"21 words, 2 workers: perplexity \d\.\d\d", text) for text in printed)


def test_a_text_of_ones_own_may_be_learned(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the dog barks\n\na cat sees the old dog\n" * 64)
    (tmp_path / "other.txt").write_text("the dog barks\nthe dog purrs\n" * 32)
    options = ["--data", str(text), "--validation", str(tmp_path / "other.txt"), "--batch-size", "8"]
    printed = run_python(tmp_path, *THREE_EPOCHS, *options)
    assert re.search(r"^10 words, 1 workers: perplexity", printed, re.MULTILINE)
