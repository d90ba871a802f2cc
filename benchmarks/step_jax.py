"""The workloads in JAX: the whole step, metric and update included, is one compiled function.

Images are laid out N H W C, which XLA is faster with on a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.step_workloads import LEARNING_RATE, MOMENTUM, Workload

Params = "dict[str, Any]"


class _Weights:
    """Draws the first weights, with names."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self.params: Params = {}

    def dense(self, name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        self._draw(f"{name}_w", (inputs, outputs), inputs)
        if bias:
            self.params[f"{name}_b"] = np.zeros(outputs, np.float32)

    def conv(self, name: str, kernel: int, inputs: int, outputs: int, bias: bool) -> None:
        self._draw(f"{name}_w", (kernel, kernel, inputs, outputs), kernel * kernel * inputs)
        if bias:
            self.params[f"{name}_b"] = np.zeros(outputs, np.float32)

    def norm(self, name: str, width: int) -> None:
        self.params[f"{name}_gamma"] = np.ones(width, np.float32)
        self.params[f"{name}_beta"] = np.zeros(width, np.float32)

    def _draw(self, name: str, shape: tuple[int, ...], inputs: int) -> None:
        drawn = self._rng.standard_normal(shape, np.float32)
        self.params[name] = drawn * np.float32(inputs**-0.5)


def _conv(x: Any, w: Any, stride: int, padding: str) -> Any:
    from jax import lax

    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _mlp(work: Workload) -> tuple[Params, Callable[..., Any]]:
    import jax

    weights, count = _Weights(), len(work.hidden)
    widths = (*work.shape, *work.hidden, work.classes)
    for i in range(count + 1):
        weights.dense(f"fc{i}", widths[i], widths[i + 1])

    def forward(p: Params, x: Any) -> tuple[Any, Params]:
        for i in range(count):
            x = jax.nn.relu(x @ p[f"fc{i}_w"] + p[f"fc{i}_b"])
        return x @ p[f"fc{count}_w"] + p[f"fc{count}_b"], {}

    return weights.params, forward


def _lenet(work: Workload) -> tuple[Params, Callable[..., Any]]:
    import jax.numpy as jnp
    from jax import lax

    weights = _Weights()
    weights.conv("conv0", 5, 1, 20, True)
    weights.conv("conv1", 5, 20, 50, True)
    weights.dense("fc0", 800, work.hidden[0])
    weights.dense("fc1", work.hidden[0], work.classes)

    def forward(p: Params, x: Any) -> tuple[Any, Params]:
        for i in range(2):
            x = jnp.tanh(_conv(x, p[f"conv{i}_w"], 1, "VALID") + p[f"conv{i}_b"])
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = jnp.tanh(x.reshape(x.shape[0], -1) @ p["fc0_w"] + p["fc0_b"])
        return x @ p["fc1_w"] + p["fc1_b"], {}

    return weights.params, forward


def _resnet(work: Workload) -> tuple[Params, Callable[..., Any]]:
    import jax
    from jax import lax

    weights = _Weights()
    plan = [
        (f"stage{s}_block{b}", f, 2 if s and not b else 1)
        for s, f in enumerate((16, 32, 64))
        for b in range(3)
    ]

    def declare(name: str, kernel: int, inputs: int, outputs: int) -> None:
        weights.conv(name, kernel, inputs, outputs, False)
        weights.norm(name, outputs)

    declare("stem", 3, 3, 16)
    width = 16
    for name, filters, stride in plan:
        declare(f"{name}_a", 3, width, filters)
        declare(f"{name}_b", 3, filters, filters)
        if stride == 2:
            declare(f"{name}_short", 1, width, filters)
        width = filters
    weights.dense("fc", width, work.classes)

    def forward(p: Params, x: Any) -> tuple[Any, Params]:
        statistics: Params = {}

        def conv_bn(x: Any, name: str, stride: int) -> Any:
            x = _conv(x, p[f"{name}_w"], stride, "SAME")
            mean = x.mean((0, 1, 2))
            var = (x * x).mean((0, 1, 2)) - mean * mean
            statistics[f"{name}_mean"], statistics[f"{name}_var"] = mean, var
            return (x - mean) * (p[f"{name}_gamma"] * lax.rsqrt(var + 1e-5)) + p[f"{name}_beta"]

        x = jax.nn.relu(conv_bn(x, "stem", 1))
        for name, _, stride in plan:
            left = conv_bn(jax.nn.relu(conv_bn(x, f"{name}_a", stride)), f"{name}_b", 1)
            x = jax.nn.relu(left + (conv_bn(x, f"{name}_short", 2) if stride == 2 else x))
        return x.mean((1, 2)) @ p["fc_w"] + p["fc_b"], statistics

    return weights.params, forward


def _lstm(work: Workload) -> tuple[Params, Callable[..., Any]]:
    import jax
    import jax.numpy as jnp
    from jax import lax

    weights, width = _Weights(), work.hidden[0]
    weights.dense("embed", work.classes, width, bias=False)
    for i, hidden in enumerate(work.hidden):
        weights.dense(f"input{i}", width, 4 * hidden)
        weights.dense(f"state{i}", hidden, 4 * hidden)
    weights.dense("output", width, work.classes)

    def forward(p: Params, words: Any) -> tuple[Any, Params]:
        x = p["embed_w"][words].swapaxes(0, 1)
        for i, hidden in enumerate(work.hidden):
            state_w = p[f"state{i}_w"]

            def step(carry: Any, inputs: Any, state_w: Any = state_w) -> Any:
                h, c = carry
                i_, f, g, o = jnp.split(inputs + h @ state_w, 4, axis=1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i_) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            zeros = jnp.zeros((work.batch, hidden), jnp.float32)
            inputs = x @ p[f"input{i}_w"] + (p[f"input{i}_b"] + p[f"state{i}_b"])
            _, x = lax.scan(step, (zeros, zeros), inputs)
        x = x.swapaxes(0, 1).reshape(-1, width)
        return x @ p["output_w"] + p["output_b"], {}

    return weights.params, forward


NETWORKS = {"mlp": _mlp, "lenet": _lenet, "resnet": _resnet, "lstm": _lstm}


def _start(threads: int) -> Any:
    """Import JAX with as many threads: it makes one per processor that it may use when it starts."""
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[:threads])
    import jax

    jax.devices()
    for thread in os.listdir("/proc/self/task"):  # afterwards each of them may run anywhere again
        os.sched_setaffinity(int(thread), every)
    return jax


def _make_step(jax: Any, work: Workload, forward: Callable[..., Any]) -> Any:
    import jax.numpy as jnp

    is_lstm = work.kind == "lstm"

    def loss_of(params: Params, x: Any, y: Any) -> Any:
        scores, statistics = forward(params, x)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), y[:, None], axis=1)
        loss = -chosen.mean()
        metric = loss if is_lstm else (scores.argmax(1) == y).sum()
        return loss, (metric, statistics)

    def step(params: Params, momenta: Params, moving: Params, x: Any, y: Any) -> Any:
        grads, (metric, new) = jax.grad(loss_of, has_aux=True)(params, x, y)
        momenta = jax.tree.map(lambda m, g: MOMENTUM * m - LEARNING_RATE * g, momenta, grads)
        params = jax.tree.map(jnp.add, params, momenta)
        moving = jax.tree.map(lambda old, now: 0.9 * old + 0.1 * now, moving, new) if moving else new
        return params, momenta, moving, metric

    return jax.jit(step, donate_argnums=(0, 1, 2))


def train(
    system: str,
    work: Workload,
    threads: int,
    pace: Any,
    make_data: Callable[[], tuple[np.ndarray, np.ndarray]],
) -> None:
    """Train for ever; `pace` keeps time, and ends it by raising."""
    jax = _start(threads)
    import jax.numpy as jnp

    data, label = make_data()
    if work.kind in ("lenet", "resnet"):
        data = np.ascontiguousarray(data.transpose(0, 2, 3, 1))
    data_type = np.int32 if work.kind == "lstm" else np.float32
    batches = [slice(i * work.batch, (i + 1) * work.batch) for i in range(work.batches)]
    pace.imported()
    params, forward = NETWORKS[work.kind](work)
    params = jax.tree.map(jnp.array, params)
    momenta = jax.tree.map(jnp.zeros_like, params)
    moving: Params = {}
    if work.kind == "resnet":
        shapes = jax.eval_shape(forward, params, jax.ShapeDtypeStruct((work.batch, 32, 32, 3), np.float32))[1]
        moving = {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}
    step = _make_step(jax, work, forward)
    while True:
        total = 0.0
        for number, part in enumerate(batches):
            x = jnp.array(data[part].astype(data_type, copy=False))
            y = jnp.array(label[part].astype(np.int32).reshape(-1))
            params, momenta, moving, metric = step(params, momenta, moving, x, y)
            total += float(metric)
            pace.step_end(number)
        pace.epoch_end()
