"""Accuracy's compiled count against numpy's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import dmod as mx


def counted(labels, scores):
    metric = mx.metric.Accuracy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metric.update([mx.nd.array(labels)], [mx.nd.array(scores)])
    return metric.get(), len(caught)


@pytest.mark.parametrize("odd_labels", [False, True])
def test_accuracy_is_the_same_without_numba(odd_labels, request):
    rng = np.random.RandomState(0)
    scores = rng.randint(-3, 4, (200, 7)).astype("float32")  # many are equal: the first one counts
    scores[::9, 3] = np.nan
    scores[::11, 5] = np.inf
    labels = rng.randint(7, size=200).astype("float32")
    if odd_labels:
        labels[:6] = [np.nan, np.inf, -1, 7, 1.9, -0.5]
    compiled = counted(labels, scores)
    request.getfixturevalue("without_numba")
    assert compiled == counted(labels, scores)
    assert compiled[1] == odd_labels
