"""Sentences become numbers and batches as in MXNet, down to the order that the same seeds give."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from tests.oracle import rnn_facts

FACTS = json.loads((Path(__file__).resolve().parent.parent / "fixtures" / "rnn.json").read_text())


def test_sentences_are_encoded_as_by_mxnet():
    assert json.loads(json.dumps(rnn_facts.FACTS["encoded"](mx))) == FACTS["encoded"]


def test_batches_and_their_order_are_those_of_mxnet():
    random.seed(3)
    np.random.seed(3)
    assert json.loads(json.dumps(rnn_facts.batches(mx))) == FACTS["batches"]


def test_an_unknown_word_gets_the_number_of_the_unknown_token():
    vocab = {"a": 0, "b": 1}
    found, after = mx.rnn.encode_sentences([["a", "x", "y"], ["b", "x"]], vocab, unknown_token="?")
    assert found == [[0, 2, 2], [1, 2]]
    assert after is vocab and vocab == {"a": 0, "b": 1, "?": 2}


def test_an_unknown_word_without_unknown_token_is_refused():
    with pytest.raises(InvalidArgument, match="'x' is not in vocab"):
        mx.rnn.encode_sentences([["x"]], {"a": 0})


def test_each_batch_describes_itself_and_labels_are_the_next_words():
    sentences = [[1, 2, 3], [4, 5, 6], [7, 8], [9, 1]]
    it = mx.rnn.BucketSentenceIter(sentences, 2, buckets=[3, 2], data_name="d", label_name="l", layout="TN")
    assert it.default_bucket_key == 3 and it.provide_data == [("d", (3, 2))]
    for batch in it:
        length = batch.bucket_key
        assert batch.provide_data == [("d", (length, 2))] and batch.provide_label == [("l", (length, 2))]
        data, label = batch.data[0].asnumpy(), batch.label[0].asnumpy()
        assert data.shape == (length, 2)
        np.testing.assert_array_equal(label, np.vstack([data[1:], [[-1, -1]]]))


def test_every_epoch_holds_every_sentence_that_fills_a_batch():
    sentences = [[k, k + 1] for k in range(9)]
    it = mx.rnn.BucketSentenceIter(sentences, 3)
    epochs = []
    for _ in range(3):
        epochs.append([row[0] for batch in it for row in batch.data[0].asnumpy().tolist()])
        it.reset()
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_sentences_that_are_too_long_are_left_out_and_reported(caplog):
    it = mx.rnn.BucketSentenceIter([[1, 2, 3], [1, 2], [3, 4]], 2, buckets=[2])
    assert len(list(it)) == 1
    assert "left out 1 sentences" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "TX"}, "layout='TX'"),
        ({"batch_size": 30}, "no 30 sentences have one length"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"buckets": [0, 3]}, "expected lengths from 1"),
        ({"buckets": []}, "expected lengths from 1"),
    ],
)
def test_what_gives_no_batches_is_refused(options, words):
    with pytest.raises(InvalidArgument, match=words):
        mx.rnn.BucketSentenceIter([[1, 2], [3, 4]], **{"batch_size": 2, **options})
