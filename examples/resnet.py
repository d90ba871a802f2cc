"""Residual networks (He et al., 2016, with identity mappings), as a function of the symbol namespace.

``resnet(mx.sym, layers=50)`` gives the network for pictures of 224 x 224; with ``layers=20`` and the like
that for CIFAR's 32 x 32.
"""

from __future__ import annotations

from typing import Any

__all__ = ["resnet"]

BOTTLENECKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _activated(sym: Any, data: Any, name: str) -> Any:
    data = sym.BatchNorm(data, fix_gamma=False, eps=2e-5, momentum=0.9, name=name + "_bn")
    return sym.Activation(data, act_type="relu", name=name + "_relu")


def _convolution(sym: Any, data: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
    return sym.Convolution(
        data,
        num_filter=filters,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        pad=(kernel // 2, kernel // 2),
        no_bias=True,
        name=name,
    )


def _unit(sym: Any, data: Any, filters: int, stride: int, match: bool, bottleneck: bool, name: str) -> Any:
    """One residual unit; `match` says whether the shortcut has the output's shape already."""
    first = _activated(sym, data, name + "_1")
    if bottleneck:
        body = _convolution(sym, first, filters // 4, 1, 1, name + "_conv1")
        body = _convolution(sym, _activated(sym, body, name + "_2"), filters // 4, 3, stride, name + "_conv2")
        body = _convolution(sym, _activated(sym, body, name + "_3"), filters, 1, 1, name + "_conv3")
    else:
        body = _convolution(sym, first, filters, 3, stride, name + "_conv1")
        body = _convolution(sym, _activated(sym, body, name + "_2"), filters, 3, 1, name + "_conv2")
    shortcut = data if match else _convolution(sym, first, filters, 1, stride, name + "_shortcut")
    return body + shortcut


def resnet(sym: Any, layers: int = 50, num_classes: int = 1000) -> Any:
    """The network, up to its SoftmaxOutput.

    Parameters
    ----------
    sym : module
        ``mx.sym``.
    layers : int
        50, 101 or 152 for ImageNet's shapes; 6 n + 2 (20, 32, 56, ...) for CIFAR's.
    num_classes : int
    """
    large = layers in BOTTLENECKS
    if not large and (layers - 2) % 6:
        raise ValueError(f"layers={layers}: expected 50, 101, 152 or 6 n + 2, such as 20")
    units = BOTTLENECKS[layers] if large else ((layers - 2) // 6,) * 3
    filters = (256, 512, 1024, 2048) if large else (16, 32, 64)
    body = sym.BatchNorm(sym.Variable("data"), fix_gamma=True, eps=2e-5, momentum=0.9, name="bn_data")
    if large:
        body = _convolution(sym, body, 64, 7, 2, "conv0")
        body = _activated(sym, body, "conv0")
        body = sym.Pooling(body, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="max", name="pool0")
    else:
        body = _convolution(sym, body, 16, 3, 1, "conv0")
    for stage, (count, width) in enumerate(zip(units, filters)):  # noqa: B905  (older Pythons run this too)
        for unit in range(count):
            stride = 2 if unit == 0 and stage > 0 else 1
            match = unit > 0 or (stage == 0 and not large)
            body = _unit(sym, body, width, stride, match, large, f"stage{stage + 1}_unit{unit + 1}")
    body = _activated(sym, body, "last")
    body = sym.Pooling(body, global_pool=True, kernel=(7, 7), pool_type="avg", name="pool1")
    body = sym.FullyConnected(sym.Flatten(body), num_hidden=num_classes, name="fc1")
    return sym.SoftmaxOutput(body, name="softmax")
