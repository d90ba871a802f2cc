"""`download`, comparisons, random arrays, checks of symbols, and data sets."""

from __future__ import annotations

import bz2
import gzip
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod import test_utils as tools
from dmod.base import FormatError, InvalidArgument, MXNetError
from dmod.ndarray import array
from dmod.test_utils import datasets


class Handler(BaseHTTPRequestHandler):
    """Serves one file, fails on every other request to /flaky, knows nothing else."""

    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append(self.path)
        flaky = self.path == "/flaky.data" and self.seen.count(self.path) % 2
        self.send_response(500 if flaky else 200 if self.path.endswith(".data") else 404)
        self.end_headers()
        if not flaky and self.path.endswith(".data"):
            self.wfile.write(b"content")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Any:
    Handler.seen = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join(5)


def test_a_local_path_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letters 1.data"
    path.write_text("x")
    assert tools.download(str(path)) == str(path)
    assert tools.download(path.as_uri()) == str(path)


def test_a_local_file_is_copied_to_a_given_place(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_text("x")
    copied = tools.download(str(tmp_path / "a.data"), dirname=str(tmp_path / "new" / "place"))
    assert Path(copied) == tmp_path / "new" / "place" / "a.data" and Path(copied).read_text() == "x"
    assert tools.download((tmp_path / "a.data").as_uri(), fname=str(tmp_path / "b")) == str(tmp_path / "b")
    assert tools.download(str(tmp_path / "a.data"), dirname=str(tmp_path), overwrite=True)


def test_a_file_is_fetched_once(server: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert tools.download(f"{server}/some/a.data?x=1".replace("?x=1", "")) == "a.data"
    assert (tmp_path / "a.data").read_text() == "content"
    tools.download(f"{server}/some/a.data")
    assert len(Handler.seen) == 1
    tools.download(f"{server}/some/a.data", overwrite=True)
    assert len(Handler.seen) == 2 and [p.name for p in tmp_path.iterdir()] == ["a.data"]


def test_a_server_error_is_tried_again_and_a_missing_file_is_not(server: str, tmp_path: Path) -> None:
    assert Path(tools.download(f"{server}/flaky.data", dirname=str(tmp_path))).read_text() == "content"
    with pytest.raises(MXNetError, match="Not Found"):
        tools.download(f"{server}/missing", dirname=str(tmp_path))
    assert Handler.seen == ["/flaky.data", "/flaky.data", "/missing"]
    assert [p.name for p in tmp_path.iterdir()] == ["flaky.data"]


def test_without_a_network_the_error_says_how_to_go_on(tmp_path: Path) -> None:
    target = tmp_path / "a.data"
    with pytest.raises(MXNetError, match=rf"put it at '{target}', or pass its local path"):
        tools.download("http://127.0.0.1:9/a.data", dirname=str(tmp_path), retries=2)
    assert not list(tmp_path.iterdir())


def test_what_names_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="pass fname"):
        tools.download("http://127.0.0.1:9/")
    with pytest.raises(MXNetError, match="no such file"):
        tools.download(str(tmp_path / "missing"))
    with pytest.raises(MXNetError, match="no such file"):
        tools.download("ftp2://somewhere/a.data")


def test_arrays_are_compared_within_the_narrower_dtypes_tolerance() -> None:
    tools.assert_almost_equal(array([1.0]), np.array([1.00005]))
    tools.assert_almost_equal(np.array([1.0], np.float16), np.array([1.005]))
    with pytest.raises(AssertionError, match="left and right differ"):
        tools.assert_almost_equal(np.array([1.0]), np.array([1.001]), names=("left", "right"))
    with pytest.raises(AssertionError):
        tools.assert_almost_equal(array([1.0]), array([1.1]))
    with pytest.raises(AssertionError):
        tools.assert_almost_equal(array([np.nan]), array([np.nan]))
    tools.assert_almost_equal(array([np.nan]), array([np.nan]), equal_nan=True)
    assert tools.almost_equal([1, 2], [1, 2]) and not tools.almost_equal([1, 2], [1, 3])
    assert tools.same(array([1]), [1]) and not tools.same(array([1]), [1.0001])


def test_tolerances_can_depend_on_dtypes_and_shapes_may_have_to_be_equal() -> None:
    a, b = np.array([1.0], np.float32), np.array([1.02], np.float32)
    tools.assert_almost_equal(a, b, rtol={np.float32: 0.1}, atol={"float32": 0})
    assert not tools.almost_equal(a, b, rtol={np.float64: 0.1}, atol=0)
    assert tools.almost_equal(np.ones((2, 1)), np.ones((1, 2)))
    assert not tools.almost_equal(np.ones((2, 1)), np.ones((1, 2)), use_broadcast=False)
    with pytest.raises(AssertionError, match=r"shapes \(2, 1\) and \(1, 2\)"):
        tools.assert_almost_equal(np.ones((2, 1)), np.ones((1, 2)), use_broadcast=False)
    assert tools.get_rtol(dtype=np.float16) == 1e-2 and tools.get_atol(dtype=np.int32) == 0
    assert tools.default_rtols()[np.dtype("float64")] == 1e-5 and tools.get_etol() == 0


def test_some_differences_can_be_let_pass() -> None:
    a, b = np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, 3.0])
    tools.assert_almost_equal_ignore_nan(a, b)
    tools.assert_almost_equal_with_err(a, b, etol=0.34)
    with pytest.raises(AssertionError, match="a and b differ"):
        tools.assert_almost_equal_with_err(a, b, etol=0.3)
    tools.compare_ndarray_tuple((array([1]), (None, array([2]))), (array([1]), (None, array([2]))))
    with pytest.raises(AssertionError):
        tools.compare_ndarray_tuple((array([1]),), (array([2]),))


def test_shared_memory_is_told_from_equal_values() -> None:
    a = array([[1, 2], [3, 4]])
    assert tools.same_array(a, a[0:1]) and not tools.same_array(a, a.copy())


def test_exceptions_are_demanded() -> None:
    tools.assert_exception(int, ValueError, "x")
    with pytest.raises(AssertionError, match="int did not raise ValueError"):
        tools.assert_exception(int, ValueError, "7")


def test_reductions_over_several_axes_are_numpys() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    for axis in (None, 1, (0, 2), [-1, 0]):
        numpys = tuple(axis) if isinstance(axis, list) else axis
        for keepdims in (True, False):
            found = tools.np_reduce(x, axis, keepdims, np.max)
            assert np.array_equal(found, x.max(axis=numpys, keepdims=keepdims))
    assert tools.collapse_sum_like(x, (3, 1)).tolist() == x.sum((0, 2)).reshape(3, 1).tolist()


def test_random_arrays_repeat_with_numpys_seed() -> None:
    def drawn() -> list[Any]:
        np.random.seed(4)
        one, (two, three) = tools.random_arrays((2, 3)), tools.random_arrays((2,), ())
        dense = tools.rand_ndarray((3, 2), dtype="float64")
        return [one, two, three, dense.asnumpy(), *tools.rand_shape_nd(3), *tools.rand_coord_2d(0, 5, 0, 5)]

    first = drawn()
    assert all(np.array_equal(a, b) for a, b in zip(first, drawn(), strict=True))
    assert first[0].shape == (2, 3) and first[0].dtype == np.float32 and first[3].dtype == np.float64
    assert all(1 <= n <= 10 for n in (*tools.rand_shape_2d(), *tools.rand_shape_3d()))
    assert sorted(tools.random_sample(range(5), 5)) == [0, 1, 2, 3, 4]
    assert tools.create_2d_tensor(2, 3).asnumpy().tolist() == [[0, 0, 0], [1, 1, 1]]
    assert tools.create_vector(3).asnumpy().tolist() == [0, 1, 2]
    assert tools.assign_each(np.array([1, 2]), lambda x: x * 2).tolist() == [2, 4]
    assert tools.assign_each2(np.array([1, 2]), np.array([3, 4]), max).tolist() == [3, 4]


def test_sparse_arrays_are_made_of_the_returned_parts() -> None:
    made, (data, rows) = tools.rand_sparse_ndarray((6, 2), "row_sparse", density=0.5, data_init=2.0)
    dense = np.zeros((6, 2), np.float32)
    dense[rows] = data
    assert made.stype == "row_sparse" and np.array_equal(made.asnumpy(), dense) and set(data.flat) <= {2.0}
    made, (indptr, columns, data) = tools.rand_sparse_ndarray((3, 4), "csr", density=0.5)
    assert made.stype == "csr" and indptr[-1] == len(columns) == len(data) == np.count_nonzero(made.asnumpy())
    assert tools.rand_ndarray((3, 4), "csr", density=0.0).asnumpy().sum() == 0
    with pytest.raises(InvalidArgument, match="expected 'row_sparse', or 'csr'"):
        tools.rand_sparse_ndarray((3, 4, 5), "csr")


def test_a_random_test_may_fail_until_its_last_try() -> None:
    tries: list[int] = []

    @tools.retry(3)
    def flaky(needed: int) -> None:
        tries.append(needed)
        assert len(tries) >= needed

    flaky(3)
    tries.clear()
    with pytest.raises(AssertionError):
        flaky(4)
    assert len(tries) == 3


def test_the_default_context_holds_where_nothing_else_is_said() -> None:
    assert tools.default_context() == mx.cpu(0)
    try:
        tools.set_default_context(mx.cpu(2))
        assert tools.default_context() == mx.cpu(2) == mx.nd.ones((1,)).context
        with mx.cpu(1):
            assert tools.default_context() == mx.cpu(1)
            tools.set_default_context(mx.cpu(3))
            assert tools.default_context() == mx.cpu(1)
        assert tools.default_context() == mx.cpu(3)
    finally:
        tools.set_default_context(mx.cpu(0))
    assert list(tools.list_gpus()) == list(range(mx.num_gpus()))


# ---- symbols


def test_a_symbols_outputs_are_checked() -> None:
    a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
    values = [np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]])]
    tools.check_symbolic_forward(mx.sym.dot(a, b), values, [np.array([[19, 22], [43, 50]])])
    named = {"b": values[1], "a": values[0]}
    out = mx.sym.dot(a, b, name="product")
    tools.check_symbolic_forward(out, named, {"product_output": values[0] @ values[1]}, dtype="asnumpy")
    with pytest.raises(AssertionError, match="expected product_output and found product_output differ"):
        tools.check_symbolic_forward(out, named, [values[0]])
    with pytest.raises(InvalidArgument, match="no argument 'c'"):
        tools.check_symbolic_forward(out, {**named, "c": 1}, [values[0]])
    with pytest.raises(InvalidArgument, match="no value for argument 'b'"):
        tools.check_symbolic_forward(out, {"a": values[0]}, [values[0]])
    with pytest.raises(InvalidArgument, match="1 values for 2 arguments"):
        tools.check_symbolic_forward(out, [values[0]], [values[0]])
    both = tools.simple_forward(mx.sym.Group([a + b, a - b]), a=values[0], b=values[1])
    assert [x.tolist() for x in both] == [[[6, 8], [10, 12]], [[-4, -4], [-4, -4]]]


@pytest.mark.parametrize("grad_req", ["write", "add", {"a": "write"}, ["null", "add"]])
def test_a_symbols_gradients_are_checked(grad_req: Any) -> None:
    product = mx.sym.Variable("a") * mx.sym.Variable("b")
    a, b, head = np.array([1.0, 2]), np.array([3.0, 4]), np.array([1.0, 10])
    tools.check_symbolic_backward(product, [a, b], [head], [b * head, a * head], grad_req=grad_req)
    wrong = {"a": b, "b": a}
    with pytest.raises(AssertionError, match=r"expected gradient of [ab]"):
        tools.check_symbolic_backward(product, [a, b], [head], wrong, grad_req=grad_req)


def test_gradients_are_compared_with_differences() -> None:
    data = np.random.RandomState(0).uniform(0.5, 1.5, (3, 4))
    x = mx.sym.Variable("x")
    tools.check_numeric_gradient(mx.sym.tanh(x) * x, [data])
    tools.check_numeric_gradient(mx.sym.tanh(x), {"x": data}, grad_nodes={"x": "add"}, dtype=np.float64)
    tools.check_numeric_gradient(mx.sym.Dropout(x, p=0.5), [data])  # repeats its random choice
    norm = mx.sym.BatchNorm(x, fix_gamma=False, name="bn")
    location = [data, np.ones(4), np.zeros(4)]
    tools.check_numeric_gradient(norm, location, [np.zeros(4), np.ones(4)], rtol=1e-2)
    tools.check_numeric_gradient(mx.sym.split(x, num_outputs=2), [data])
    indices = mx.sym.take(x, mx.sym.Variable("i"))
    tools.check_numeric_gradient(indices, {"x": data, "i": np.array([0, 2])}, grad_nodes=["x"])
    with pytest.raises(AssertionError, match="numeric gradient of x and gradient of x differ"):
        tools.check_numeric_gradient(mx.sym.SoftmaxOutput(x, mx.sym.zeros((3,))), [data])


def test_numeric_gradients_leave_the_executor_as_it_was() -> None:
    x = mx.sym.Variable("x")
    executor = mx.sym.square(x).bind(mx.cpu(), [array([3.0], dtype="float64")])
    assert tools.numeric_grad(executor, [np.array([3.0])])["x"] == pytest.approx([6.0])
    assert executor.arg_dict["x"].asnumpy().tolist() == [3.0]


def test_devices_and_dtypes_are_compared() -> None:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    dtypes = ("float64", "float32", "float16")
    bindings = [
        {"ctx": mx.cpu(i), "data": (2, 4), "type_dict": dict.fromkeys(net.list_arguments(), dtype)}
        for i, dtype in enumerate(dtypes)
    ]
    truth = tools.check_consistency(net, bindings)
    assert truth["fc_output"].dtype == np.float64 and set(truth) >= {"fc_weight", "data"}
    values = {"data": np.ones((2, 4)), "fc_weight": np.ones((3, 4)), "fc_bias": np.zeros(3)}
    wrong = {"fc_output": np.zeros((2, 3))}
    with pytest.raises(AssertionError, match="fc_output of cpu"):
        tools.check_consistency(net, bindings, arg_params=values, ground_truth=wrong)
    tools.check_consistency(net, bindings, arg_params=values, ground_truth=wrong, raise_on_err=False)
    both = [net, mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")]
    tools.check_consistency(both, bindings[:2], use_uniform=True, grad_req="null")


def test_speed_is_a_positive_number() -> None:
    net = mx.sym.tanh(mx.sym.Variable("x"))
    assert tools.check_speed(net, N=2, x=(3, 4)) > 0
    assert tools.check_speed(net, {"x": np.ones(3)}, N=2, typ="forward") > 0
    with pytest.raises(InvalidArgument, match="'whole' or 'forward'"):
        tools.check_speed(net, typ="backward", x=(3,))


def test_structures_are_compared_whatever_the_names() -> None:
    def net(name: str) -> Any:
        return mx.sym.relu(mx.sym.Variable(name), name=name + "1")

    assert tools.same_symbol_structure(net("a"), net("b"))
    assert not tools.same_symbol_structure(net("a"), mx.sym.tanh(net("a")))


def test_optimizers_are_compared() -> None:
    sgd = mx.optimizer.SGD
    tools.compare_optimizer(sgd(momentum=0.9), sgd(momentum=0.9), (3, 2), "float32", ntensors=2)
    with pytest.raises(AssertionError, match="first optimizer's and second's differ"):
        tools.compare_optimizer(sgd(learning_rate=1), sgd(learning_rate=2), (3, 2), "float32")


# ---- data sets


def idx(values: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, values.ndim])
        + b"".join(n.to_bytes(4, "big") for n in values.shape)
        + values.tobytes()
    )


def write_mnist(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    for name in datasets._MNIST_FILES.values():
        content = idx(images if "images" in name else np.array([3, 7], np.uint8))
        (directory / f"{name}.gz").write_bytes(gzip.compress(content))


def test_mnist_is_read_from_files_that_are_there(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_mnist(tmp_path / "data")
    mnist = tools.get_mnist()
    assert mnist["train_data"].shape == (2, 1, 28, 28) and mnist["train_data"].dtype == np.float32
    assert mnist["train_data"].max() == 1 and mnist["test_label"].tolist() == [3, 7]
    train, test = tools.get_mnist_iterator(1, (784,), num_parts=2, part_index=1)
    assert [b.label[0].asnumpy().tolist() for b in train] == [[7.0]]
    assert next(test).data[0].shape == (1, 784)
    tools.get_mnist_ubyte()
    assert (tmp_path / "data" / "t10k-labels-idx1-ubyte").read_bytes() == idx(np.array([3, 7], np.uint8))


def test_a_damaged_data_set_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_mnist(tmp_path)
    name = "train-images-idx3-ubyte"
    for content in (b"", b"\0\0\x08", b"\0\0\x08\x03\0\0", idx(np.zeros((2, 2), np.uint8))[:-1]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=f"{name}: not MNIST's file"):
            tools.get_mnist()
    (tmp_path / name).unlink()
    (tmp_path / f"{name}.gz").write_bytes(b"not packed")
    with pytest.raises(FormatError, match=r"\.gz: "):
        tools.get_mnist()


def test_a_missing_data_set_is_fetched_or_said_where_to_put(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "_MNIST", "http://127.0.0.1:9/")
    monkeypatch.setattr(datasets, "download", lambda url, **kw: tools.download(url, retries=1, **kw))
    with pytest.raises(MXNetError, match=r"put it at 'data/train-images-idx3-ubyte\.gz'"):
        tools.get_mnist()
    with pytest.raises(MXNetError, match=r"put the files data/cifar/train\.rec"):
        tools.get_cifar10()


def test_archives_are_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inside.txt", "x")
    tools.get_zip_data(str(tmp_path / "out"), (tmp_path / "a.zip").as_uri(), "b.zip")
    assert (tmp_path / "out" / "inside.txt").read_text() == "x"
    (tmp_path / "a.bz2").write_bytes(bz2.compress(b"y"))
    tools.get_bz2_data(str(tmp_path / "out"), "plain", (tmp_path / "a.bz2").as_uri(), "a.bz2")
    assert (tmp_path / "out" / "plain").read_text() == "y"
    (tmp_path / "a.bz2").unlink()
    tools.get_bz2_data(str(tmp_path / "out"), "plain", (tmp_path / "a.bz2").as_uri(), "a.bz2")  # is there


def test_a_dummy_iterator_repeats_the_first_batch() -> None:
    it = tools.DummyIter(mx.io.NDArrayIter(np.arange(4), batch_size=2))
    assert [next(it).data[0].asnumpy().tolist() for _ in range(3)] == [[0, 1]] * 3 and it.batch_size == 2
