"""The arrays of benchmarks/kvstore.py."""

from __future__ import annotations

from collections.abc import Callable

Shapes = dict[str, tuple[int, ...]]


def resnet50(divide: int = 1) -> Shapes:
    """ResNet-50's 161 parameters, 25.6 million floats; `divide` makes the wide axis smaller, for tests.

    He, Zhang, Ren, Sun, *Deep residual learning for image recognition*, 2016, with 1000 classes.

    >>> shapes = resnet50()
    >>> len(shapes), sum(a * b * c * d for a, b, c, d in (s + (1,) * (4 - len(s)) for s in shapes.values()))
    (161, 25557032)
    """
    shapes: Shapes = {}

    def convolution(name: str, inputs: int, outputs: int, size: int) -> None:
        outputs = max(1, outputs // divide)
        shapes[f"{name}_weight"] = (outputs, inputs, size, size)
        shapes[f"{name}_gamma"] = shapes[f"{name}_beta"] = (outputs,)

    convolution("stem", 3, 64, 7)
    inputs = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            convolution(f"{name}_a", inputs, width, 1)
            convolution(f"{name}_b", width, width, 3)
            convolution(f"{name}_c", width, 4 * width, 1)
            if block == 1:
                convolution(f"{name}_shortcut", inputs, 4 * width, 1)
            inputs = 4 * width
    classes = max(1, 1000 // divide)
    shapes["fc_weight"], shapes["fc_bias"] = (classes, inputs), (classes,)
    return shapes


WORKLOADS: dict[str, Callable[[int], Shapes]] = {
    "161 keys, 102 MB": resnet50,
    "1 key, 64 MB": lambda divide: {"whole": ((64 << 20) // 4 // divide,)},
    "1000 keys of 1 KB": lambda divide: {f"k{i}": (256,) for i in range(1000 // divide)},
    "4 bytes": lambda divide: {"one": (1,)},
}
"""By name: the arrays, which `divide` makes smaller or fewer."""
