"""`worker_split`: every instance goes to one worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dmod import io
from dmod.base import InvalidArgument
from dmod.ndarray import array


def split(rank: int, workers: int) -> io.WorkerSplit:
    return io.worker_split(SimpleNamespace(rank=rank, num_workers=workers))


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("equal", [False, True])
def test_every_instance_goes_to_one_worker(workers: int, equal: bool) -> None:
    data = np.arange(23)
    parts = [split(r, workers).arrays(data, equal=equal)["data"] for r in range(workers)]
    lengths = {len(part) for part in parts}
    assert max(lengths) - min(lengths) <= (not equal)
    joined = np.concatenate(parts).tolist()
    assert joined == list(range(23 - 23 % workers if equal else 23))


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x, x], lambda x: {"a": x, "b": x}])
def test_arrays_come_in_the_forms_that_iterators_take(wrap: Any) -> None:
    x = np.arange(10.0)
    iterator = io.NDArrayIter(**split(1, 2).arrays(wrap(array(x)), wrap(x)), batch_size=5)
    batch = iterator.next()
    for part in [*batch.data, *batch.label]:
        assert part.asnumpy().tolist() == [5, 6, 7, 8, 9]
    assert np.shares_memory(split(1, 2).arrays(x)["data"], x)


def test_it_is_a_mapping_of_what_file_iterators_take() -> None:
    assert dict(**split(1, 3)) == {"num_parts": 3, "part_index": 1} and len(split(1, 3)) == 2
    assert dict(io.worker_split()) == {"num_parts": 1, "part_index": 0}
    assert repr(split(1, 3)) == "WorkerSplit(num_parts=3, part_index=1)"


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="2 instances for 3 workers"):
        split(0, 3).arrays(np.zeros(2))
    with pytest.raises(InvalidArgument, match=r"different lengths, or none: \[3, 4\]"):
        split(0, 2).arrays(np.zeros(3), np.zeros(4))
    with pytest.raises(InvalidArgument, match="part 2 of 2"):
        io.WorkerSplit(2, 2)
