"""Print MXNet's tables of two networks: run this with MXNet 1.9.1's Python.

``python tests/oracle/make_summary_fixtures.py > tests/fixtures/summaries.txt``
"""

from __future__ import annotations

from typing import Any


def lenet(sym: Any) -> Any:
    """Convolution, pooling, dense layers."""
    x = sym.Convolution(sym.Variable("data"), kernel=(5, 5), num_filter=20, name="conv1")
    x = sym.Activation(x, act_type="tanh", name="tanh1")
    x = sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max", name="pool1")
    x = sym.FullyConnected(sym.Flatten(x, name="flatten"), num_hidden=500, name="fc1")
    x = sym.FullyConnected(x, num_hidden=10, no_bias=True, name="fc2")
    return sym.SoftmaxOutput(x, name="softmax")


def residual(sym: Any) -> Any:
    """Batch norm, a group convolution, layers with two inputs."""
    x = sym.Convolution(
        sym.Variable("data"), kernel=(3, 3), pad=(1, 1), num_filter=8, no_bias=True, name="c0"
    )
    y = sym.Activation(sym.BatchNorm(x, fix_gamma=False, name="bn0"), act_type="relu", name="r0")
    y = sym.Convolution(y, kernel=(3, 3), pad=(1, 1), num_filter=8, num_group=2, name="c1")
    y = sym.concat(sym.elemwise_add(x, y, name="sum"), x, dim=1, name="cat")
    y = sym.Pooling(y, global_pool=True, kernel=(7, 7), pool_type="avg", name="gp")
    y = sym.FullyConnected(sym.Dropout(y, name="dp"), num_hidden=5, name="fc")
    return sym.SoftmaxOutput(y, name="softmax")


def print_all(mx: Any) -> None:
    """Both tables, in two widths."""
    mx.viz.print_summary(lenet(mx.sym), shape={"data": (1, 1, 28, 28)})
    mx.viz.print_summary(residual(mx.sym), {"data": (2, 3, 8, 8)}, 100, [0.4, 0.6, 0.75, 1.0])


if __name__ == "__main__":
    import mxnet

    print_all(mxnet)
