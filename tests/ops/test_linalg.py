"""Products and factors of matrices: numeric gradients, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, MXNetError
from tests.gradients import worst_gradient_error

TOLERANCE = 1e-6
a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
rng = np.random.RandomState(0)
REGULAR = rng.randn(2, 3, 3) + 3 * np.eye(3)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_dot(transpose_a, transpose_b):
    shapes = {"a": (4, 2, 3) if transpose_a else (2, 3, 4), "b": (5, 4) if transpose_b else (4, 5)}
    net = mx.sym.dot(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    assert worst_gradient_error(net, shapes) < TOLERANCE
    net = mx.sym.batch_dot(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    shapes = {"a": (2, 4, 3) if transpose_a else (2, 3, 4), "b": (2, 5, 4) if transpose_b else (2, 4, 5)}
    assert worst_gradient_error(net, shapes) < TOLERANCE


def test_khatri_rao():
    net = mx.sym.khatri_rao(a, b, mx.sym.Variable("c"))
    assert worst_gradient_error(net, {"a": (2, 3), "b": (3, 3), "c": (2, 3)}) < TOLERANCE


@pytest.mark.parametrize("attrs", [{}, {"transpose_a": True, "alpha": 2.0, "beta": 3.0}], ids=str)
def test_gemm(attrs):
    shape = (4, 3) if "transpose_a" in attrs else (3, 4)
    net = mx.sym.linalg_gemm(a, b, mx.sym.Variable("c"), **attrs)
    assert worst_gradient_error(net, {"a": shape, "b": (4, 2), "c": (3, 2)}) < TOLERANCE


@pytest.mark.parametrize("name", ["linalg_trmm", "linalg_trsm"])
@pytest.mark.parametrize("rightside", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_products_with_triangles(name, rightside, transpose):
    net = getattr(mx.sym, name)(a, b, rightside=rightside, transpose=transpose, alpha=2.0)
    assert worst_gradient_error(net, {"a": (2, 3, 3), "b": (2, 3, 3)}, values={"a": REGULAR}) < TOLERANCE


@pytest.mark.parametrize("lower", [False, True])
def test_cholesky(lower):
    """A change of one element of A breaks its symmetry, so A is made of something that has none."""
    product = mx.sym.linalg_syrk(a)
    net = mx.sym.linalg_potri(mx.sym.linalg_potrf(product, lower=lower), lower=lower)
    assert worst_gradient_error(net, {"a": (2, 3, 3)}, values={"a": REGULAR}) < 1e-5
    net = mx.sym.linalg_sumlogdiag(mx.sym.linalg_potrf(product, lower=lower))
    assert worst_gradient_error(net, {"a": (2, 3, 3)}, values={"a": REGULAR}) < TOLERANCE


def test_eigenvectors():
    net = mx.sym._linalg_syevd(mx.sym.linalg_syrk(a))
    values = {"a": rng.randn(2, 3, 3)}
    assert worst_gradient_error(net, {"a": (2, 3, 3)}, values=values) < 1e-5


def test_lq_factors():
    values = {"a": rng.randn(2, 3, 4)}
    assert worst_gradient_error(mx.sym.linalg_gelqf(a), {"a": (2, 3, 4)}, values=values) < 1e-5


@pytest.mark.parametrize("name", ["linalg_inverse", "linalg_det"])
def test_inverse_and_determinant(name):
    assert worst_gradient_error(getattr(mx.sym, name)(a), {"a": (2, 3, 3)}, values={"a": REGULAR}) < TOLERANCE


def test_logarithm_of_the_determinant():
    net = mx.sym.linalg_slogdet(a)[1]
    assert worst_gradient_error(net, {"a": (2, 3, 3)}, values={"a": REGULAR}) < TOLERANCE


@pytest.mark.parametrize("name", ["linalg_det", "linalg_slogdet"])
def test_a_singular_matrix_has_determinant_0_and_no_gradient(name):
    exe = getattr(mx.sym, name)(a).simple_bind(mx.cpu(), a=(2, 2))
    exe.forward(is_train=True, a=[[1, 2], [2, 4]])
    exe.backward([mx.nd.ones((1,)) for _ in exe.outputs])
    assert exe.outputs[0].asscalar() == 0
    assert not exe.grad_dict["a"].asnumpy().any()


@pytest.mark.parametrize("name", ["extractdiag", "makediag", "extracttrian", "maketrian"])
@pytest.mark.parametrize("offset", [-1, 0, 2])
def test_parts(name, offset):
    net = getattr(mx.sym, f"linalg_{name}")(a, offset=offset)
    assert worst_gradient_error(net, {"a": (2, 3, 3)}) < TOLERANCE


def test_a_matrix_that_is_not_positive_definite_is_an_error():
    exe = mx.sym.linalg_potrf(a).bind(mx.cpu(), {"a": mx.nd.array([[-1, 0], [0, 1]])})
    with pytest.raises(MXNetError, match="positive definite"):
        exe.forward()


@pytest.mark.parametrize(
    ("build", "shapes", "words"),
    [
        (lambda: mx.sym.dot(a, b, name="y"), {"a": (2, 3), "b": (4, 5)}, ["dot 'y'", "rhs", "3", "(4, 5)"]),
        (
            lambda: mx.sym.batch_dot(a, b, name="y"),
            {"a": (2, 3, 4), "b": (3, 4, 5)},
            ["batch_dot 'y'", "rhs", "(2, 3, 4)", "(3, 4, 5)"],
        ),
        (
            lambda: mx.sym.khatri_rao(a, b, name="y"),
            {"a": (2, 3), "b": (2, 4)},
            ["khatri_rao 'y'", "arg1", "3 columns", "(2, 4)"],
        ),
        (
            lambda: mx.sym.linalg_gemm2(a, b, name="y"),
            {"a": (2, 3), "b": (2, 4)},
            ["_linalg_gemm2 'y'", "B", "(2, 4)", "(2, 3)"],
        ),
        (
            lambda: mx.sym.linalg_trmm(a, b, name="y"),
            {"a": (3, 3), "b": (2, 4)},
            ["_linalg_trmm 'y'", "A", "(2, 2)", "(3, 3)"],
        ),
        (lambda: mx.sym.linalg_potrf(a, name="y"), {"a": (2, 3)}, ["'y'", "A", "(2, 3)", "square"]),
        (lambda: mx.sym.linalg_maketrian(a, name="y"), {"a": (2, 5)}, ["'y'", "A", "5 elements"]),
    ],
)
def test_errors_name_node_argument_and_shapes(build, shapes, words):
    with pytest.raises(InvalidArgument) as error:
        build().infer_shape(**shapes)
    for word in words:
        assert word in str(error.value)


def test_linear_algebra_refuses_float16():
    with pytest.raises(InvalidArgument, match=r"float16.*Cast"):
        mx.sym.linalg_potrf(a).infer_type(a="float16")
