"""oneDNN: finding it, what is wrong with one that is not used, layouts, products and primitives."""

from __future__ import annotations

import ctypes
import ctypes.util
import logging

import numpy as np
import pytest

from dmod.base import MXNetError
from dmod.device import onednn as package
from dmod.device.onednn import NotImplementedByLibrary, library, onednn
from dmod.device.onednn.api import Arg, Kind, Prop, Query, Runtime, Version
from dmod.device.onednn.convolution import Convolution, Shapes
from dmod.device.onednn.layers import Pooling
from dmod.device.onednn.matmul import matmul

needs_library = pytest.mark.skipif(onednn() is None, reason="oneDNN is not installed")


@pytest.fixture
def found_anew():
    """The library is looked for once; here it is each time."""
    library.load.cache_clear()
    onednn.cache_clear()
    yield
    library.load.cache_clear()
    onednn.cache_clear()


class FakeLibrary:
    """One that says its version, and has nothing else."""

    def __init__(self, major, runtime=Runtime.OPENMP):
        self.version = Version(major, 7, 1, b"", runtime, 0)

        def dnnl_version():
            return ctypes.pointer(self.version)

        self.dnnl_version = dnnl_version


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (FakeLibrary(2), "oneDNN 2.7.1, expected version 3"),
        (FakeLibrary(3, runtime=4), "another thread pool than OpenMP"),
        (FakeLibrary(3), "is no oneDNN 3"),
    ],
    ids=["old", "other threads", "incomplete"],
)
def test_a_library_that_does_not_fit_is_refused(fake, said, monkeypatch):
    monkeypatch.setattr(library.ctypes, "CDLL", lambda path: fake)
    with pytest.raises(MXNetError, match=said):
        library.open_library("libdnnl.so.3")


def test_a_foreign_library_is_refused():
    with pytest.raises(MXNetError, match="is no oneDNN 3"):
        library.open_library(ctypes.util.find_library("c") or "libc.so.6")


def test_a_missing_library_is_said_once_at_info(found_anew, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("DMOD_ONEDNN", str(tmp_path / "libdnnl.so.3"))
    with caplog.at_level(logging.INFO, logger="dmod"):
        assert onednn() is None
        assert onednn() is None
    (record,) = [r for r in caplog.records if "oneDNN" in r.message]
    assert record.levelno == logging.INFO
    assert "cannot open shared object" in record.message and "onednn-cpu-gomp" in record.message


def test_the_setting_refuses_the_library_silently(found_anew, monkeypatch, caplog):
    monkeypatch.setenv("DMOD_ONEDNN", "0")
    with caplog.at_level(logging.INFO, logger="dmod"):
        assert onednn() is None
    assert not caplog.records


def test_the_setting_names_the_only_candidate(monkeypatch):
    assert library.candidates("/a/libdnnl.so.3") == ["/a/libdnnl.so.3"]
    assert library.candidates("")[-1] == "libdnnl.so.3"


@needs_library
def test_the_number_of_threads_reaches_openmp_in_every_thread(found_anew, monkeypatch):
    monkeypatch.setattr(package, "_num_threads", None)
    engine = onednn()
    told = []
    monkeypatch.setattr(engine, "_set_threads", told.append)
    engine.enter()
    package.set_num_threads(2)
    engine.enter()
    engine.enter()
    package.set_num_threads(1)
    engine.enter()
    assert told == [2, 1]


@needs_library
def test_layouts_say_what_they_are():
    engine = onednn()
    plain = engine.plain((2, 16, 3, 3))
    assert plain.is_plain and not plain.is_padded and plain.nbytes == 4 * 2 * 16 * 9
    last = engine.channels_last((2, 16, 3, 3))
    assert not last.is_plain and last != plain
    assert engine.channels_last((2, 1, 3, 3)).is_plain and engine.channels_last((2, 5, 1, 1)).is_plain


@needs_library
def test_a_reorder_changes_the_order_in_memory():
    engine = onednn()
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    y = np.zeros((2, 4, 3), np.float32)
    source, target = engine.plain(x.shape), engine.channels_last(x.shape)
    engine.reorder(source, target).bind({Arg.SRC: (source, x), Arg.DST: (target, y)}, np.empty)()
    np.testing.assert_array_equal(y, x.transpose(0, 2, 1))


@needs_library
@pytest.mark.parametrize("function", [None, "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)])
def test_products_agree_with_numpy(function, transposed):
    rng = np.random.default_rng(0)
    left = rng.normal(size=(7, 5)[:: -1 if transposed[0] else 1]).astype(np.float32)
    right = rng.normal(size=(5, 9)[:: -1 if transposed[1] else 1]).astype(np.float32)
    left, right = (a.T if t else a for a, t in zip((left, right), transposed, strict=True))
    bias, out = rng.normal(size=9).astype(np.float32), np.empty((7, 9), np.float32)
    matmul(onednn(), left, right, out, np.empty, bias, function)()
    wanted = left.astype(float) @ right + bias
    functions = {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    }
    np.testing.assert_allclose(out, functions.get(function, lambda x: x)(wanted), rtol=2e-5, atol=2e-6)


@needs_library
def test_products_of_other_dtypes_are_left_to_numpy():
    a = np.ones((2, 2))
    assert matmul(onednn(), a, a, a.copy(), np.empty) is None
    empty = np.ones((0, 2), np.float32)
    assert matmul(onednn(), empty, np.ones((2, 2), np.float32), empty.copy(), np.empty) is None


@needs_library
def test_arrays_that_are_too_small_are_refused():
    engine = onednn()
    layout = engine.plain((4, 4))
    found = engine.describe("binary", Kind.ADD, layout, layout, layout)
    arrays = {arg: (layout, np.zeros(8, np.float32)) for arg in (Arg.SRC, Arg.SRC_1, Arg.DST)}
    with pytest.raises(MXNetError, match="an array of 32 bytes, expected 64"):
        found.bind(arrays, np.empty)


@needs_library
def test_what_the_library_refuses_names_the_primitive():
    engine = onednn()
    with pytest.raises(MXNetError, match="oneDNN: matmul: invalid arguments"):
        engine.describe("matmul", engine.plain((2, 3)), engine.plain((4, 5)), None, engine.plain((2, 5)))


@needs_library
def test_channels_are_never_padded():
    """20 and 50 channels come last; multiples of 16 are in the library's blocks."""
    shapes = Shapes((2, 20, 8, 8), (50, 20, 3, 3), (2, 50, 6, 6), (1, 1), (1, 1), (0, 0))
    spec = Convolution(onednn(), shapes)
    assert not spec.source.is_padded and not spec.target.is_padded
    assert spec.target == onednn().channels_last(shapes.out)
    wide = Shapes((2, 32, 8, 8), (64, 32, 3, 3), (2, 64, 6, 6), (1, 1), (1, 1), (0, 0))
    assert not Convolution(onednn(), wide).target.is_padded


@needs_library
def test_the_first_of_equal_maxima_gets_the_gradient():
    engine = onednn()
    layout = engine.plain((1, 1, 2, 2))
    spec = Pooling(engine, layout, (1, 1, 1, 1), Kind.POOLING_MAX, (2, 2), (2, 2), (0, 0), (0, 0), True)
    x, y = np.array([1, 3, 3, 2], np.float32), np.zeros(1, np.float32)
    places = np.zeros(spec.workspace.nbytes, np.uint8)
    given = {Arg.SRC: (layout, x), Arg.DST: (spec.target, y), Arg.WORKSPACE: (spec.workspace, places)}
    spec.forward.bind(given, np.empty)()
    dx, dy = np.zeros(4, np.float32), np.array([5], np.float32)
    given = {
        Arg.DIFF_SRC: (layout, dx),
        Arg.DIFF_DST: (spec.target, dy),
        Arg.WORKSPACE: (spec.workspace, places),
    }
    spec.backward.bind(given, np.empty)()
    assert y[0] == 3 and dx.tolist() == [0, 5, 0, 0]


@needs_library
def test_a_primitive_that_is_not_there_says_so():
    engine = onednn()
    layout = engine.plain((2, 3, 4, 4))
    with pytest.raises(NotImplementedByLibrary, match="batch normalization"):
        engine.check(3, "batch normalization")
    found = engine.describe("eltwise_forward", Prop.FORWARD_TRAINING, Kind.RELU, layout, layout, 0.0, 0.0)
    assert found.layout(Query.DST).nbytes == layout.nbytes
