"""Sentences for bucketing: words as numbers, and batches of sentences of about one length."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.io import DataBatch, DataDesc, DataIter
from dmod.io.resume import random_state, set_random_state
from dmod.log import logger, show_progress
from dmod.ndarray import NDArray, array

__all__ = ["BucketSentenceIter", "encode_sentences"]


def encode_sentences(
    sentences: Iterable[Iterable[Any]],
    vocab: dict[Any, int] | None = None,
    invalid_label: int = -1,
    invalid_key: Any = "\n",
    start_label: int = 0,
    unknown_token: Any = None,
) -> tuple[list[list[int]], dict[Any, int]]:
    """Put a number in the place of every word.

    Parameters
    ----------
    sentences : list of list of str
    vocab : dict of str to int, optional
        The words' numbers. Without one, every word gets a number when it first appears.
    invalid_label, invalid_key
        The number and the word that stand for the end of a sentence, in a new vocabulary.
    start_label : int
        The lowest number of a new vocabulary.
    unknown_token : str, optional
        With a `vocab`: the word to take for words that are not in it; it is put in if need be. (MXNet 1.9.1
        gives each of them another number.)

    Returns
    -------
    (sentences, vocab)

    Raises
    ------
    InvalidArgument
        A word is not in `vocab`, and there is no `unknown_token`.

    Examples
    --------
    >>> encode_sentences([['a', 'b'], ['b', 'c']], invalid_label=0)
    ([[1, 2], [2, 3]], {'\\n': 0, 'a': 1, 'b': 2, 'c': 3})
    """
    is_new = vocab is None
    vocab = {invalid_key: invalid_label} if vocab is None else vocab
    taken = set(vocab.values())
    label = start_label

    def number(word: Any) -> int:
        nonlocal label
        if word not in vocab and not is_new:
            if unknown_token is None:
                raise InvalidArgument(f"encode_sentences: {word!r} is not in vocab; give an unknown_token")
            word = unknown_token
        if word not in vocab:
            while label in taken or label == invalid_label:
                label += 1
            vocab[word] = label
            taken.add(label)
        return vocab[word]

    return [[number(word) for word in sentence] for sentence in sentences], vocab


class BucketSentenceIter(DataIter):
    """Batches for a language model: each of sentences from one bucket, with the next words as labels.

    A sentence goes into the smallest bucket that holds it, and is filled up with `invalid_label`; longer
    ones than the largest bucket are left out, and so is what doesn't fill a batch. Batches come in another
    order in each epoch, by `random`'s and `numpy.random`'s global generators.

    Parameters
    ----------
    sentences : list of list of int
    batch_size : int
    buckets : list of int, optional
        The lengths. By default all lengths that at least `batch_size` sentences have.
    invalid_label : int
        What sentences and labels are filled up with.
    data_name, label_name : str
    dtype : str
        Of data and labels.
    layout : {'NT', 'TN'}

    Examples
    --------
    >>> it = BucketSentenceIter([[1, 2], [3, 4], [5, 6, 7]], batch_size=2, buckets=[2, 3])
    >>> [(batch.bucket_key, batch.data[0].shape) for batch in it]
    [(2, (2, 2))]
    """

    peekable = True

    def __init__(
        self,
        sentences: Sequence[Sequence[int]],
        batch_size: int,
        buckets: Sequence[int] | None = None,
        invalid_label: int = -1,
        data_name: str = "data",
        label_name: str = "softmax_label",
        dtype: str = "float32",
        layout: str = "NT",
    ):
        super().__init__(batch_size)
        if layout not in ("NT", "TN"):
            raise InvalidArgument(f"BucketSentenceIter: layout={layout!r}, expected 'NT' or 'TN'")
        self.buckets = _buckets(sentences, batch_size, buckets)
        self.data_name = data_name
        self.label_name = label_name
        self.dtype = dtype
        self.invalid_label = invalid_label
        self.layout = layout
        self.major_axis = layout.find("N")
        self.default_bucket_key = max(self.buckets)
        self.data = self._fill(sentences)
        self.provide_data = [self._describe(data_name, self.default_bucket_key)]
        self.provide_label = [self._describe(label_name, self.default_bucket_key)]
        self.idx = [
            (bucket, start)
            for bucket, rows in enumerate(self.data)
            for start in range(0, len(rows) - batch_size + 1, batch_size)
        ]
        self.nddata: list[NDArray] = []
        self.ndlabel: list[NDArray] = []
        self._orders = [np.arange(len(rows)) for rows in self.data]  # which sentence each row is
        self.reset()

    def _fill(self, sentences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """The sentences of each bucket as rows."""
        rows: list[list[np.ndarray]] = [[] for _ in self.buckets]
        discarded = 0
        for sentence in sentences:
            bucket = bisect_left(self.buckets, len(sentence))
            if bucket == len(self.buckets):
                discarded += 1
                continue
            row = np.full(self.buckets[bucket], self.invalid_label, self.dtype)
            row[: len(sentence)] = sentence
            rows[bucket].append(row)
        if discarded:
            show_progress()
            logger.warning(
                "BucketSentenceIter: left out %d sentences longer than the largest bucket", discarded
            )
        return [
            np.asarray(own, self.dtype).reshape(len(own), length)
            for own, length in zip(rows, self.buckets, strict=True)
        ]

    def _describe(self, name: str, length: int) -> DataDesc:
        shape = (self.batch_size, length) if self.major_axis == 0 else (length, self.batch_size)
        return DataDesc(name, shape, layout=self.layout)

    def reset(self) -> None:
        """Shuffle sentences and batches, and begin the next epoch."""
        self.curr_idx = 0
        random.shuffle(self.idx)
        for bucket, rows in enumerate(self.data):
            places = np.arange(len(rows))
            np.random.shuffle(places)
            self._take(bucket, places)
        self._make_arrays()

    def _take(self, bucket: int, places: np.ndarray) -> None:
        """Put a bucket's rows into another order."""
        self.data[bucket] = self.data[bucket][places]
        self._orders[bucket] = self._orders[bucket][places]

    def _make_arrays(self) -> None:
        self.nddata, self.ndlabel = [], []
        for rows in self.data:
            label = np.empty_like(rows)
            label[:, :-1] = rows[:, 1:]
            label[:, -1] = self.invalid_label
            self.nddata.append(array(rows, dtype=self.dtype))
            self.ndlabel.append(array(label, dtype=self.dtype))

    def state_dict(self) -> dict[str, Any]:
        """See `DataIter.state_dict`; the states of the global generators are part of it."""
        return {
            "batches": [list(place) for place in self.idx],
            "orders": list(self._orders),
            "position": self.curr_idx,
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataIter.load_state_dict`; it also sets the global generators."""
        lengths = [len(order) for order in state["orders"]]
        if lengths != [len(rows) for rows in self.data] or len(state["batches"]) != len(self.idx):
            raise InvalidArgument(
                f"BucketSentenceIter.load_state_dict: the state is of buckets with {lengths} sentences, "
                f"the iterator has {[len(rows) for rows in self.data]}"
            )
        for bucket, order in enumerate(state["orders"]):
            self._take(bucket, np.argsort(self._orders[bucket])[order])
        self._make_arrays()
        self.idx = [(int(bucket), int(start)) for bucket, start in state["batches"]]
        self.curr_idx = int(state["position"])
        set_random_state(state["random"])

    def next(self) -> DataBatch:
        """The next batch; its `bucket_key` is the length of its sentences."""
        if self.curr_idx == len(self.idx):
            raise StopIteration
        bucket, start = self.idx[self.curr_idx]
        self.curr_idx += 1
        data, label = (
            whole[bucket][start : start + self.batch_size] for whole in (self.nddata, self.ndlabel)
        )
        if self.major_axis == 1:
            data, label = data.T, label.T
        length = self.buckets[bucket]
        return DataBatch(
            [data],
            [label],
            pad=0,
            bucket_key=length,
            provide_data=[self._describe(self.data_name, length)],
            provide_label=[self._describe(self.label_name, length)],
        )


def _buckets(sentences: Sequence[Sequence[int]], batch_size: int, buckets: Sequence[int] | None) -> list[int]:
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise InvalidArgument(
            f"BucketSentenceIter: batch_size={batch_size!r}, expected a whole number from 1"
        )
    if buckets is None:
        lengths: Mapping[int, int] = Counter(map(len, sentences))
        buckets = [length for length, count in lengths.items() if length and count >= batch_size]
        if not buckets:
            raise InvalidArgument(
                f"BucketSentenceIter: no {batch_size} sentences have one length; give buckets"
            )
    if not buckets or min(buckets) < 1:
        raise InvalidArgument(f"BucketSentenceIter: buckets={buckets!r}, expected lengths from 1")
    return sorted(buckets)
