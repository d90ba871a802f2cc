"""`NDArrayIter`: MXNet's batches, epoch by epoch; names, views and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmod import io
from dmod.base import InvalidArgument, NotReadyError
from dmod.context import Context
from dmod.ndarray.ndarray import NDArray, array

EPOCHS = json.loads((Path(__file__).parent.parent / "fixtures" / "iterators.json").read_text())
X, Y = np.arange(20.0).reshape(10, 2), np.arange(10)


def run(iterator: io.NDArrayIter) -> list[list[Any]]:
    """The labels and padding of each batch; the data must go with the labels."""
    batches = []
    for batch in iterator:
        label = batch.label[0].asnumpy()
        assert (batch.data[0].asnumpy()[:, 0] == 2 * label).all()
        batches.append([label.astype(int).tolist(), batch.pad])
    return batches


@pytest.mark.parametrize(("handle", "shuffle", "batch_size", "expected"), EPOCHS)
def test_epochs_are_those_of_mxnet(handle: str, shuffle: bool, batch_size: int, expected: Any) -> None:
    np.random.seed(3)
    iterator = io.NDArrayIter(X, Y, batch_size, shuffle, handle)
    epochs = []
    for _ in range(3):
        epochs.append(run(iterator))
        iterator.reset()
    iterator.hard_reset()
    epochs.append(run(iterator))
    assert epochs == expected


@pytest.mark.parametrize("handle", ["pad", "discard", "roll_over"])
def test_asking_again_after_the_end_changes_nothing(handle: str) -> None:
    eager, patient = (io.NDArrayIter(X, Y, 4, last_batch_handle=handle) for _ in range(2))
    for _ in range(3):
        assert run(eager) == run(patient)
        for _ in range(2):
            with pytest.raises(StopIteration):
                eager.next()
        eager.reset()
        patient.reset()


@pytest.mark.parametrize("handle", ["pad", "discard", "roll_over"])
def test_an_epoch_that_was_left_begins_again(handle: str) -> None:
    iterator = io.NDArrayIter(X, Y, 4, last_batch_handle=handle)
    whole = run(iterator)
    iterator.hard_reset()
    iterator.next()
    iterator.reset()
    assert run(iterator) == whole


def test_a_batch_larger_than_the_data_wraps_around_several_times() -> None:
    assert run(io.NDArrayIter(X, Y, 25)) == [[[i % 10 for i in range(25)], 15]]


def test_batches_are_views_and_later_epochs_leave_them_alone() -> None:
    data = array(X)
    iterator = io.NDArrayIter(data, Y, 4)
    assert np.shares_memory(iterator.next().data[0]._data, data._data)
    shuffled = io.NDArrayIter(data, Y, 5, shuffle=True)
    kept = shuffled.next()
    before = kept.data[0].asnumpy()
    for _ in range(3):
        shuffled.reset()
    assert (kept.data[0].asnumpy() == before).all() and (data.asnumpy() == X).all()


def test_numpy_data_are_copied_when_the_iterator_is_made() -> None:
    source = X.astype(np.float32)
    iterator = io.NDArrayIter(source, Y, 5)
    source[:] = -1
    assert run(iterator)[0] == [[0, 1, 2, 3, 4], 0]


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "uint8", "bool"])
def test_numpy_data_become_float32(dtype: str) -> None:
    iterator = io.NDArrayIter(Y.astype(dtype), None, 5)
    assert iterator.provide_data[0].dtype == iterator.next().data[0].dtype == np.float32


def test_ndarrays_keep_dtype_and_device() -> None:
    there = Context("cpu", 1)
    iterator = io.NDArrayIter(array(Y, there, "int32"), None, 4)
    assert iterator.provide_data[0].dtype == np.int32
    assert {(b.data[0].dtype, b.data[0].context) for b in iterator} == {(np.int32, there)}


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (X, ["data"]),
        ([X], ["data"]),
        ([X, X], ["_0_data", "_1_data"]),
        ({"b": X, "a": X}, ["a", "b"]),
    ],
)
def test_names_are_those_of_mxnet(data: Any, names: list[str]) -> None:
    iterator = io.NDArrayIter(data, data, 5)
    labels = [n.replace("data", "softmax_label") for n in names]
    assert iterator.provide_data == [(n, (5, 2)) for n in names]
    assert iterator.provide_label == [(n, (5, 2)) for n in labels]


def test_names_and_layout_can_be_chosen() -> None:
    iterator = io.NDArrayIter(X, X, 5, data_name="x", label_name="y", layout="NC")
    assert [d.name for d in iterator.provide_data + iterator.provide_label] == ["x", "y"]
    assert iterator.provide_data[0].layout == "NC"


def test_without_labels_there_are_none() -> None:
    iterator = io.NDArrayIter(X, batch_size=5)
    assert iterator.provide_label == [] and iterator.next().label == []


def test_batches_can_be_taken_by_hand() -> None:
    iterator = io.NDArrayIter(X, Y, 4)
    with pytest.raises(NotReadyError, match="next"):
        iterator.getdata()
    assert iterator.iter_next()
    assert iterator.getlabel()[0].asnumpy().tolist() == [0, 1, 2, 3]
    assert (iterator.getpad(), iterator.getindex(), iterator.cursor) == (0, None, 0)
    assert [iterator.iter_next() for _ in range(3)] == [True, True, False]
    with pytest.raises(NotReadyError, match="reset"):
        iterator.getlabel()


class ScipyMatrix:
    """What scipy's csr matrices look like."""

    format = "csr"

    def __init__(self, csr: Any):
        self.indptr, self.indices = (a.asnumpy() for a in (csr.indptr, csr.indices))
        self.data, self.shape = csr.data.asnumpy().astype("float64"), csr.shape


@pytest.mark.parametrize("wrap", [lambda csr: csr, ScipyMatrix])
@pytest.mark.parametrize("handle", ["pad", "discard", "roll_over"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_csr_arrays_give_csr_batches_of_the_same_values(wrap: Any, handle: str, shuffle: bool) -> None:
    dense = array(np.arange(40).reshape(10, 4) % 3)
    found = []
    for data in (dense, wrap(dense.tostype("csr"))):
        np.random.seed(2)
        iterator = io.NDArrayIter(data, Y, 4, shuffle, handle)
        batches = []
        for _ in range(3):
            batches += [(b.data[0].stype, b.data[0].asnumpy().tolist(), b.pad) for b in iterator]
            iterator.reset()
        found.append(batches)
    assert {stype for stype, *_ in found[1]} == {"csr"}
    assert [b[1:] for b in found[0]] == [b[1:] for b in found[1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": Y[:5]}, "'data' has 10 instances, 'softmax_label' has 5"),
        ({"data": X[:0]}, r"'data' has shape \(0, 2\)"),
        ({"data": []}, "no arrays in data"),
        ({"data": X.tolist()}, r"data is a list of 10 lists, .* numpy\.array\(data\) makes one array"),
        ({"data": {}}, "no arrays in data"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.0}, "batch_size=2.0"),
        ({"batch_size": 11, "last_batch_handle": "discard"}, "no batch"),
        ({"batch_size": 11, "last_batch_handle": "roll_over"}, "no batch"),
        ({"last_batch_handle": "keep"}, "expected one of pad, discard, roll_over"),
    ],
)
def test_what_gives_no_batches_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        io.NDArrayIter(**{"data": X, "label": Y, **arguments})


@pytest.mark.parametrize(
    ("data", "came"),
    [
        (None, "data is of type NoneType"),
        ("abc", "data is of type str"),
        (3, "data is of type int"),
        ((X, X), "data is of type tuple"),
        ({"a": "x"}, "data is a dict in which 'a' is of type str"),
        ([1, 2], r"data is a list in which '_0_data' is of type int.* numpy\.array\(data\) makes one"),
        ([["a"], ["b"]], "'_0_data' does not make an array of numbers"),
        ([[[1, 2], [3]]], "'data' does not make an array of numbers"),
    ],
)
def test_what_is_no_array_is_refused(data: Any, came: str) -> None:
    with pytest.raises(TypeError, match=f"NDArrayIter: {came}") as error:
        io.NDArrayIter(data)
    assert "expected an NDArray, a numpy array, a list of arrays or a dict of name to array" in str(
        error.value
    )


# ---- the base


def test_a_description_is_a_pair_with_dtype_and_layout() -> None:
    desc = io.DataDesc("data", (2, 3), np.float16, "NC")
    assert desc == ("data", (2, 3)) and (desc.dtype, desc.layout) == (np.float16, "NC")
    assert repr(io.DataDesc("data", (2, 3))) == "DataDesc[data,(2, 3),<class 'numpy.float32'>,NCHW]"
    for other in (copy.copy(desc), pickle.loads(pickle.dumps(desc))):
        assert other == desc and (other.dtype, other.layout) == (np.float16, "NC")


def test_the_batch_axis_is_where_n_stands() -> None:
    assert [io.DataDesc.get_batch_axis(x) for x in (None, "NCHW", "TNC", "CHW")] == [0, 0, 1, -1]


def test_descriptions_come_from_shapes_and_types() -> None:
    shapes = [("a", (1, 2)), ("b", (3,))]
    assert [d.dtype for d in io.DataDesc.get_list(shapes, [("b", np.float16), ("a", np.int32)])] == [
        np.int32,
        np.float16,
    ]
    assert io.DataDesc.get_list(shapes, None) == shapes


def test_a_batch_wants_lists_and_prints_its_shapes() -> None:
    one = array([1.0])
    with pytest.raises(TypeError, match="data must be a list"):
        io.DataBatch(one)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="label must be a list"):
        io.DataBatch([one], one)  # type: ignore[arg-type]
    assert str(io.DataBatch([one])) == "DataBatch: data shapes: [(1,)] label shapes: None"


def test_an_iterator_of_ones_own_defines_the_parts() -> None:
    class Two(io.DataIter):
        left = 2

        def iter_next(self) -> bool:
            self.left -= 1
            return self.left >= 0

        def getdata(self) -> list[NDArray]:
            return [array([self.left])]

    assert [b.data[0].asscalar() for b in Two(1)] == [1, 0]
    with pytest.raises(StopIteration):
        io.DataIter().next()
