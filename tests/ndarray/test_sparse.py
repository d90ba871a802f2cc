"""Sparse arrays. The expected values are those of MXNet 1.9.1, or of the same computation on dense arrays."""

from __future__ import annotations

import copy
import operator
import pickle
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, MXNetError, NotSupportedForSparseNDArray
from dmod.device.standin import stand_in_gpus

sparse = mx.nd.sparse
FIXTURE = Path(__file__).parent.parent / "fixtures" / "sparse.params"


def rows():
    return sparse.row_sparse_array(([[1, 2], [3, 4]], [0, 3]), shape=(5, 2))


def csr():
    return sparse.csr_matrix(([1, 2, 3], [0, 2, 1], [0, 2, 2, 3]), shape=(3, 4))


MAKERS = {"row_sparse": rows, "csr": csr}
BOTH = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def random_csr(seed, shape, density=0.3, dtype="float64"):
    generator = np.random.default_rng(seed)
    dense = generator.normal(size=shape) * (generator.random(shape) < density)
    return sparse.csr_matrix(mx.nd.array(dense, dtype=dtype)), dense.astype(dtype)


def test_row_sparse_arrays_are_made_of_rows_of_dense_arrays_and_of_shapes():
    dense = np.array([[1, 0], [0, 0], [3, 4], [0, 5]])
    for made in (
        sparse.row_sparse_array(mx.nd.array(dense)),
        sparse.row_sparse_array(dense.tolist()),
        sparse.row_sparse_array(dense.astype("float32")),
        mx.nd.array(dense).tostype("row_sparse"),
        mx.nd.cast_storage(mx.nd.array(dense), "row_sparse"),
    ):
        assert made.stype == "row_sparse" and made.dtype is np.float32
        assert made.indices.asnumpy().tolist() == [0, 2, 3] and made.indices.dtype is np.int64
        assert made.data.asnumpy().tolist() == [[1, 0], [3, 4], [0, 5]]
        assert made.asnumpy().tolist() == dense.tolist()
    inferred = sparse.row_sparse_array(([[1, 2], [3, 4]], [0, 3]))
    assert inferred.shape == (4, 2) and sparse.row_sparse_array((3, 2)).asnumpy().tolist() == [[0, 0]] * 3
    assert (
        sparse.row_sparse_array((np.ones((1, 2)), [0])).dtype is np.float64
    )  # a numpy array keeps its dtype
    unsorted = sparse.row_sparse_array(([[1, 2], [3, 4]], [3, 0]), shape=(5, 2))
    assert unsorted.indices.asnumpy().tolist() == [0, 3] and unsorted[:].asnumpy()[3].tolist() == [1, 2]
    assert mx.nd.zeros((2, 3), stype="row_sparse").indices.size == 0


def test_csr_matrices_are_made_of_parts_coordinates_dense_arrays_and_shapes():
    x = csr()
    assert x.asnumpy().tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [0, 3, 0, 0]]
    for made in (
        sparse.csr_matrix(x.asnumpy()),
        sparse.csr_matrix(([3, 2, 1], ([2, 0, 0], [1, 2, 0])), shape=(3, 4)),
        sparse.csr_matrix(x),
        sparse.array(x),
        mx.nd.array(x),
    ):
        assert made.stype == "csr" and made.shape == (3, 4) and made.dtype is np.float32
        assert made.indptr.asnumpy().tolist() == [0, 2, 2, 3] and made.indices.asnumpy().tolist() == [0, 2, 1]
        assert made.data.asnumpy().tolist() == [1, 2, 3]
    assert sparse.csr_matrix(([1, 2, 3], [0, 2, 1], [0, 2, 2, 3])).shape == (3, 3)
    assert sparse.csr_matrix((3, 2)).asnumpy().tolist() == [[0, 0]] * 3
    assert sparse.empty("csr", (2, 3)).indices.size == 0
    scipy_like = pytest.importorskip("scipy.sparse", reason="SciPy is optional")
    assert (sparse.csr_matrix(scipy_like.csr_matrix(x.asnumpy())) - x).data.size == 0
    assert np.array_equal(x.asscipy().toarray(), x.asnumpy())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sparse.row_sparse_array(([[1, 2]], [5]), shape=(5, 2)), "row indices are not below 5"),
        (lambda: sparse.row_sparse_array(([[1, 2], [3, 4]], [1, 1]), shape=(5, 2)), "given twice"),
        (lambda: sparse.row_sparse_array(([[1, 2]], [0, 1])), "do not fit"),
        (lambda: sparse.row_sparse_array(([[1, 2]], [0]), shape=(3, 3)), "do not fit shape"),
        (lambda: sparse.row_sparse_array(([[1, 2]], [0], [1])), "a tuple of 3 parts"),
        (lambda: sparse.csr_matrix(([1], [4], [0, 1]), shape=(1, 4)), "column indices are not below 4"),
        (lambda: sparse.csr_matrix(([1, 2], [0, 1], [0, 2, 1]), shape=(2, 4)), "indptr does not rise"),
        (lambda: sparse.csr_matrix(([1], ([3], [0])), shape=(2, 2)), "row indices are not below 2"),
        (lambda: sparse.csr_matrix(rows()), "cannot be made of a RowSparseNDArray"),
        (lambda: sparse.csr_matrix(np.ones(3)), "cannot be csr"),
        (lambda: sparse.zeros("coo", (2, 2)), "storage type 'coo'"),
        (lambda: sparse.array([[1]]), "expected a sparse array"),
        (lambda: rows().tostype("csr"), "from row_sparse to csr"),
        (lambda: csr().tostype("row_sparse"), "from csr to row_sparse"),
        (lambda: mx.nd.ones((2, 2)).tostype("coo"), "expected 'default', 'row_sparse' or 'csr'"),
        (lambda: rows()[0], r"only supports \[:\]"),
        (lambda: csr()[0, 1], "slice of successive rows"),
        (lambda: csr()[::2], "slice of successive rows"),
        (lambda: operator.setitem(csr(), slice(None), 1), "numbers to a CSRNDArray"),
        (lambda: operator.setitem(rows(), 0, 1), r"only supports \[:\]"),
        (lambda: rows().retain([7]), "row indices are not below 5"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(InvalidArgument, match=words):
        make()


@BOTH
def test_copies_and_conversions(make):
    x = make()
    for other in (x.copy(), pickle.loads(pickle.dumps(x)), copy.deepcopy(x), x.as_in_context(mx.cpu(1))):
        assert type(other) is type(x) and np.array_equal(other.asnumpy(), x.asnumpy())
    assert x.as_in_context(mx.cpu(1)).context == mx.cpu(1)
    assert x.astype("float64").dtype is np.float64 and x.astype("float64").stype == x.stype
    assert x.tostype("default").stype == "default" and x.tostype(x.stype) is not x
    dense, same = mx.nd.zeros(x.shape), sparse.zeros(x.stype, x.shape)
    assert x.copyto(dense) is dense and np.array_equal(dense.asnumpy(), x.asnumpy())
    assert dense.copyto(same) is same and np.array_equal(same.asnumpy(), x.asnumpy())
    same[:] = mx.nd.ones(x.shape)
    assert (same.asnumpy() == 1).all()
    same[:] = x
    assert same.data.size == x.data.size
    same[:] = np.eye(*x.shape)
    assert np.array_equal(same.asnumpy(), np.eye(*x.shape))
    x.data[:] = 9  # a copy
    assert 9 not in x.asnumpy()
    x.check_format()
    assert len(x) == x.shape[0] and x.size == x.shape[0] * x.shape[1] and x.ndim == 2
    assert repr(x) == f"\n<{type(x).__name__} {x.shape[0]}x{x.shape[1]} @cpu(0)>"


def test_numbers_fill_a_row_sparse_array():
    x = rows()
    x[:] = 2
    assert x.indices.asnumpy().tolist() == [0, 1, 2, 3, 4] and (x.asnumpy() == 2).all()


def test_rows_of_a_csr_matrix():
    x = csr()
    dense = x.asnumpy()
    for key in (0, -1, slice(0, 2), slice(1, 3), slice(None), slice(-2, -1), slice(5, 7)):
        part = x[key]
        assert part.stype == "csr"
        assert np.array_equal(part.asnumpy(), np.atleast_2d(dense[key])), key
    with pytest.raises(IndexError):
        x[3]
    assert [row.shape for row in x] == [(1, 4)] * 3


def test_check_format_finds_columns_in_disorder():
    x = sparse.csr_matrix(([1, 2], [3, 0], [0, 2]), shape=(1, 4))
    x.check_format(full_check=False)
    with pytest.raises(InvalidArgument, match="ascending"):
        x.check_format()


@BOTH
@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "gt", "eq", "ne", "lt", "ge", "pow"])
def test_arithmetic_gives_what_dense_arrays_give(make, name):
    function, x = getattr(operator, name), make()
    dense = x.tostype("default")
    for pair, dense_pair in (
        ((x, make()), (dense, dense)),
        ((x, 2), (dense, 2)),
        ((2, x), (2, dense)),
        ((x, mx.nd.full(x.shape, 3)), (dense, mx.nd.full(x.shape, 3))),
        ((mx.nd.full(x.shape, 3), x), (mx.nd.full(x.shape, 3), dense)),
    ):
        np.testing.assert_array_equal(function(*pair).asnumpy(), function(*dense_pair).asnumpy())


@BOTH
def test_what_keeps_zeros_stays_sparse(make):
    x, dense = make(), mx.nd.full(make().shape, 3)
    kept = (x + x, x - x, x * x, x * 2, 2 * x, x / 2, x * dense, -x, abs(x), x > 2, x == 2, x + 0, x != 0)
    assert {y.stype for y in kept} == {x.stype}
    dropped = (x + 2, x + dense, dense + x, dense * x, x / x, 2 / x, 2 - x, x**2, x < 2, x >= 0, x == x)
    assert {y.stype for y in dropped} == {"default"}
    for name in ("abs", "square", "sqrt", "relu", "sign", "negative", "expm1", "zeros_like"):
        result = getattr(mx.nd, name)(x)
        assert result.stype == x.stype, name
        wanted = getattr(mx.nd, name)(x.tostype("default")).asnumpy()
        np.testing.assert_allclose(result.asnumpy(), wanted, rtol=1e-6)
    assert x.clip(0, 2).stype == x.stype and x.clip(1, 2).stype == "default"
    for name in ("exp", "cos", "ones_like", "transpose", "flatten"):
        assert getattr(mx.nd, name)(x).stype == "default", name
    x += make()
    assert x.stype == make().stype and np.array_equal(x.asnumpy(), 2 * make().asnumpy())


def test_sums_of_rows_that_differ():
    other = sparse.row_sparse_array(([[1, 1]], [1]), shape=(5, 2))
    for total in (rows() + other, mx.nd.elemwise_add(rows(), other), mx.nd.add_n(rows(), other)):
        assert total.indices.asnumpy().tolist() == [0, 1, 3]
        assert total.data.asnumpy().tolist() == [[1, 2], [1, 1], [3, 4]]
    assert (rows() * other).asnumpy().sum() == 0
    with pytest.raises(InvalidArgument, match="dtypes"):
        rows() + rows().astype("float64")
    with pytest.raises(TypeError, match="not supported"):
        rows() + None


@pytest.mark.parametrize("seed", range(5))
def test_products_are_those_of_dense_matrices(seed):
    generator = np.random.default_rng(seed)
    n, m, k = generator.integers(1, 30, 3)
    left, dense_left = random_csr(seed, (n, m))
    right, tall = generator.normal(size=(m, k)), generator.normal(size=(n, k))
    x, y = mx.nd.array(right, dtype="float64"), mx.nd.array(tall, dtype="float64")
    product = mx.nd.dot(left, x)
    assert product.stype == "default"
    np.testing.assert_allclose(product.asnumpy(), dense_left @ right, atol=1e-12)
    np.testing.assert_allclose(
        mx.nd.dot(left, x.T, transpose_b=True).asnumpy(), dense_left @ right, atol=1e-12
    )
    turned = sparse.dot(left, y, transpose_a=True)
    assert turned.stype == "row_sparse"
    turned.check_format()
    np.testing.assert_allclose(turned.asnumpy(), dense_left.T @ tall, atol=1e-12)
    assert mx.nd.dot(left, y, transpose_a=True, forward_stype="default").stype == "default"
    other = mx.nd.dot(y.T, left)
    assert other.stype == "csr"
    np.testing.assert_allclose(other.asnumpy(), tall.T @ dense_left, atol=1e-12)
    full = mx.nd.FullyConnected(left, x.T, mx.nd.ones((k,), dtype="float64"), num_hidden=int(k))
    np.testing.assert_allclose(full.asnumpy(), dense_left @ right + 1, atol=1e-12)
    np.testing.assert_allclose(left.sum(axis=0).asnumpy(), dense_left.sum(0), atol=1e-12)
    np.testing.assert_allclose(left.mean(axis=1).asnumpy(), dense_left.mean(1), atol=1e-12)
    np.testing.assert_allclose(left.norm().asnumpy(), np.linalg.norm(dense_left).reshape(1), atol=1e-12)
    summed = left + random_csr(seed + 100, (n, m))[0]
    assert summed.stype == "csr"
    np.testing.assert_allclose(summed.asnumpy(), dense_left + random_csr(seed + 100, (n, m))[1], atol=1e-12)


def test_a_large_product_is_made_in_pieces():
    left, dense = random_csr(7, (300, 50), density=0.5)
    right = np.random.default_rng(8).normal(size=(50, 400))
    product = mx.nd.dot(left, mx.nd.array(right, dtype="float64"))
    np.testing.assert_allclose(product.asnumpy(), dense @ right, atol=1e-11)
    with pytest.raises(InvalidArgument, match="dot"):
        mx.nd.dot(left, mx.nd.ones((3, 2), dtype="float64"))


def test_slices_and_concatenations_of_csr_stay_csr():
    x, dense = random_csr(3, (6, 5))
    part = mx.nd.slice(x, begin=(1, 1), end=(4, None))
    assert part.stype == "csr" and np.array_equal(part.asnumpy(), dense[1:4, 1:])
    both = mx.nd.concat(x, x, dim=0)
    assert both.stype == "csr" and np.array_equal(both.asnumpy(), np.concatenate([dense, dense]))
    column = mx.nd.array(np.arange(6).reshape(6, 1), dtype="float64")
    scaled = mx.nd.broadcast_mul(x, column)
    assert scaled.stype == "csr" and np.allclose(scaled.asnumpy(), dense * np.arange(6)[:, None])


def test_retain_keeps_rows_and_adds_zeros():
    for kept in (rows().retain(mx.nd.array([3, 4])), sparse.retain(rows(), mx.nd.array([3, 4]))):
        assert kept.indices.asnumpy().tolist() == [3, 4] and kept.data.asnumpy().tolist() == [[3, 4], [0, 0]]


def test_embedding_looks_up_rows_of_a_sparse_weight():
    for function in (mx.nd.Embedding, sparse.Embedding):
        found = function(mx.nd.array([[0, 3], [1, 0]]), rows(), input_dim=5, output_dim=2)
        assert found.asnumpy().tolist() == [[[1, 2], [3, 4]], [[0, 0], [1, 2]]]


@pytest.mark.parametrize("stype", ["default", "row_sparse"])
def test_updates_touch_only_the_rows_of_a_sparse_gradient(stype):
    weight, momentum = mx.nd.ones((5, 2)).tostype(stype), mx.nd.zeros((5, 2)).tostype(stype)
    assert mx.nd.sgd_update(weight, rows(), lr=0.1, wd=0.1, out=weight) is weight
    wanted = np.ones((5, 2))
    wanted[[0, 3]] = [[0.89, 0.79], [0.69, 0.59]]
    np.testing.assert_allclose(weight.asnumpy(), wanted, rtol=1e-6)
    mx.nd.sgd_mom_update(weight, rows(), momentum, lr=0.1, momentum=0.9, out=weight)
    wanted[[0, 3]] = [[0.79, 0.59], [0.39, 0.19]]
    np.testing.assert_allclose(weight.asnumpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(momentum.asnumpy()[[0, 3]], [[-0.1, -0.2], [-0.3, -0.4]], rtol=1e-6)
    assert weight.stype == stype and not momentum.asnumpy()[[1, 2, 4]].any()
    mean, var = mx.nd.zeros((5, 2)), mx.nd.zeros((5, 2))
    before = weight.asnumpy()
    mx.nd.adam_update(weight, rows(), mean, var, lr=0.1, out=weight)
    assert (weight.asnumpy() != before).any(1).tolist() == [True, False, False, True, False]
    assert mean.asnumpy().any(1).tolist() == [True, False, False, True, False]
    mx.nd.sgd_update(weight, rows(), lr=0.1, wd=0.5, lazy_update=False, out=weight)
    assert (weight.asnumpy()[1] != before[1]).all()  # weight decay reaches all rows


@BOTH
def test_methods_of_dense_arrays_are_refused_or_densify(make):
    x = make()
    for refused in ("asscalar", "to_dlpack_for_read", "to_dlpack_for_write"):
        with pytest.raises(NotSupportedForSparseNDArray, match="tostype"):
            getattr(x, refused)()
    with pytest.raises(NotSupportedForSparseNDArray):
        x.reshape((-1,))
    with pytest.raises(NotSupportedForSparseNDArray):
        x.slice_assign_scalar(1, (0,), (1,), (1,))
    assert x.expand_dims(0).shape == (1, *x.shape) and x.T.shape == x.shape[::-1]
    assert x.squeeze().stype == x.broadcast_to(x.shape).stype == x.flatten().stype == "default"
    x.attach_grad()
    assert x.grad.shape == x.shape and x.detach().grad is None


def test_files_of_mxnet_are_read_and_written_byte_by_byte(tmp_path):
    loaded = mx.nd.load(str(FIXTURE))
    stypes = ["row_sparse", "row_sparse", "row_sparse", "csr", "csr", "default"]
    assert [x.stype for x in loaded.values()] == stypes
    assert np.array_equal(loaded["rows"].asnumpy(), rows().asnumpy())
    assert np.array_equal(loaded["csr"].asnumpy(), csr().asnumpy())
    assert loaded["half"].dtype is np.float16 and loaded["half"].asnumpy().tolist() == [[0, 0], [1.5, 2]]
    assert not loaded["no_rows"].asnumpy().any() and not loaded["no_values"].asnumpy().any()
    path = tmp_path / "again.params"
    mx.nd.save(str(path), loaded)
    assert path.read_bytes() == FIXTURE.read_bytes()


def test_they_live_on_other_devices_too():
    with stand_in_gpus():
        ctx = mx.gpu(1)
        x, y = csr().as_in_context(ctx), rows().as_in_context(ctx)
        assert x.context == ctx and np.array_equal(x.asnumpy(), csr().asnumpy())
        product = mx.nd.dot(x, mx.nd.ones((4, 2), ctx=ctx))
        assert product.context == ctx and product.asnumpy().tolist() == [[3, 3], [0, 0], [3, 3]]
        assert np.array_equal((y + y).asnumpy(), 2 * rows().asnumpy()) and (y * 2).context == ctx
        weight = mx.nd.ones((5, 2), ctx=ctx)
        mx.nd.sgd_update(weight, y, lr=1, out=weight)
        assert weight.asnumpy()[3].tolist() == [-2, -3]
        with pytest.raises(MXNetError, match="gpu"):
            x + csr()


@pytest.mark.parametrize("contexts", [1, 2])
def test_a_module_trains_on_csr_batches(contexts):
    generator = np.random.default_rng(0)
    dense = generator.normal(size=(64, 10)) * (generator.random((64, 10)) < 0.4)
    label = (dense @ np.arange(10) > 0).astype("f")
    data = mx.sym.Variable("data", stype="csr")
    assert data.list_attr() == {"__storage_type__": "2"}
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(data, num_hidden=2, name="fc"), name="softmax")
    module = mx.mod.Module(net, context=[mx.cpu(i) for i in range(contexts)])
    module.bind([("data", (16, 10))], [("softmax_label", (16,))])
    module.init_params(mx.init.Zero())
    module.init_optimizer(optimizer_params={"learning_rate": 0.5})
    matrix = sparse.csr_matrix(dense.astype("f"))
    for step in range(40):
        rows_of = slice(step % 4 * 16, step % 4 * 16 + 16)
        batch = mx.io.DataBatch([matrix[rows_of]], [mx.nd.array(label[rows_of])])
        module.forward_backward(batch)
        module.update()
    module.forward(mx.io.DataBatch([matrix[0:16]], [mx.nd.array(label[:16])]), is_train=False)
    assert (module.get_outputs()[0].asnumpy().argmax(1) == label[:16]).mean() > 0.9
