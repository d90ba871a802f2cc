"""Normalisation within samples, LeakyReLU, UpSampling, resizing and BatchNorm's variants."""

from __future__ import annotations

from typing import Any

from tests.oracle.family import Table, op

CASES = Table()
IMAGE = (2, 6, 3, 4)


def _case(name: str, suffix: str, options: dict, shape: Any, **rest: Any) -> None:
    CASES.add(
        f"{name.lstrip('_')}_{suffix}".lower(),
        lambda sym: op(sym, name)(sym.Variable("data"), name="y", **options),
        {"data": shape},
        **rest,
    )


def _norms() -> None:
    for suffix, options, shape in [
        ("rows", {}, (5, 6)),
        ("image", {}, IMAGE),
        ("axis_1", {"axis": 1}, IMAGE),
        ("axis_0", {"axis": 0, "eps": 0.1}, IMAGE),
        ("axis_m2", {"axis": -2}, IMAGE),
        ("mean_var", {"output_mean_var": True, "eps": 1e-3}, (5, 6)),
        ("mean_var_axis_1", {"output_mean_var": True, "axis": 1}, IMAGE),
    ]:
        _case("LayerNorm", suffix, options, shape, atol=5e-6)
    _case("LayerNorm", "float64", {}, (5, 6), dtype="float64", rtol=1e-8)
    _case("LayerNorm", "float16", {"eps": 0.1}, (5, 6), dtype="float16", rtol=2e-2, atol=1e-2)
    for suffix, options, shape in [
        ("one", {}, IMAGE),
        ("two", {"num_groups": 2}, IMAGE),
        ("each", {"num_groups": 6, "eps": 0.1}, IMAGE),
        ("mean_var", {"num_groups": 3, "output_mean_var": True}, IMAGE),
        ("line", {"num_groups": 2}, (2, 6, 5)),
    ]:
        _case("GroupNorm", suffix, options, shape, atol=5e-6)
    for suffix, options, shape in [
        ("image", {}, IMAGE),
        ("line", {"eps": 0.1}, (2, 3, 7)),
        ("volume", {}, (2, 3, 2, 3, 2)),
    ]:
        _case("InstanceNorm", suffix, options, shape, atol=5e-6)
    for mode in ("instance", "channel", "spatial"):
        _case("L2Normalization", mode, {"mode": mode}, IMAGE)
        _case("L2Normalization", mode + "_line", {"mode": mode, "eps": 0.1}, (2, 3, 5))
    _case("L2Normalization", "rows", {}, (3, 5))
    _case("L2Normalization", "float64", {}, (3, 5), dtype="float64")
    for suffix, options in [
        ("default", {"nsize": 5}),
        ("strong", {"nsize": 3, "alpha": 0.5}),
        ("even", {"nsize": 4, "alpha": 0.5}),
        ("one", {"nsize": 1, "alpha": 0.5}),
        ("wider_than_data", {"nsize": 9, "alpha": 0.5}),
        ("beta", {"nsize": 3, "alpha": 0.5, "beta": 0.6, "knorm": 1.5}),
    ]:
        _case("LRN", suffix, options, IMAGE)


def _leaky() -> None:
    for act_type in ("leaky", "elu", "selu", "gelu", "prelu"):
        # MXNet's gradient of selu is not that of its output: it scales once too often.
        rest: dict[str, Any] = {"skip": ("grad/data",) if act_type == "selu" else ()}
        _case("LeakyReLU", act_type, {"act_type": act_type}, (3, 4, 5), **rest)
        for dtype in ("float64", "float16"):
            rest.update(dtype=dtype, rtol=1e-5 if dtype == "float64" else 0.0, atol=2e-3)
            _case("LeakyReLU", f"{act_type}_{dtype}", {"act_type": act_type}, (3, 4), **rest)
    for act_type in ("leaky", "elu"):
        for slope in (0.0, 0.01, 1.5):
            _case("LeakyReLU", f"{act_type}_slope_{slope}", {"act_type": act_type, "slope": slope}, (3, 4))
    CASES.add(
        "leakyrelu_prelu_one_slope",
        lambda sym: sym.LeakyReLU(
            sym.Variable("data"), gamma=sym.Variable("gamma", shape=(1,)), act_type="prelu", name="y"
        ),
        {"data": (3, 4, 2)},
    )
    CASES.add(
        "leakyrelu_prelu_by_position",
        lambda sym: sym.LeakyReLU(sym.Variable("data"), sym.Variable("g"), act_type="prelu", name="y"),
        {"data": (3, 4, 2)},
    )
    # rrelu isn't here: MXNet 1.9.1's own crashes.


def _images() -> None:
    def upsample(count: int, **options: Any) -> Any:
        return lambda sym: sym.UpSampling(
            *[sym.Variable("abc"[i]) for i in range(count)], name="y", num_args=count, **options
        )

    nearest: dict[str, Any] = {"sample_type": "nearest"}
    CASES.add("upsampling_one", upsample(1, scale=3, **nearest), {"a": (2, 3, 2, 4)})
    CASES.add("upsampling_once", upsample(1, scale=1, **nearest), {"a": (2, 3, 2, 4)})
    two = {"a": (2, 3, 2, 4), "b": (2, 2, 4, 8)}
    CASES.add("upsampling_concat", upsample(2, scale=4, **nearest), two)
    three = {"a": (2, 3, 2, 4), "b": (2, 3, 4, 8), "c": (2, 3, 2, 4)}
    CASES.add("upsampling_sum", upsample(3, scale=4, multi_input_mode="sum", **nearest), three)
    for scale in (1, 2, 3, 4):
        CASES.add(
            f"upsampling_bilinear_{scale}",
            lambda sym, scale=scale: sym.UpSampling(
                sym.Variable("a"), sym.Variable("w"), scale=scale, sample_type="bilinear", num_filter=2,
                num_args=2, name="y",
            ),
            {"a": (2, 2, 3, 4)},
            atol=1e-5,
        )  # fmt: skip
    CASES.add(
        "upsampling_bilinear_own_weight",
        lambda sym: sym.UpSampling(
            sym.Variable("a"), scale=2, sample_type="bilinear", num_filter=2, name="y"
        ),
        {"a": (2, 2, 3, 4)},
        atol=1e-5,
    )
    resize = "_contrib_BilinearResize2D"
    for align in (True, False):
        for size in ((5, 7), (2, 3), (1, 1), (3, 4), (6, 4)):
            options = {"height": size[0], "width": size[1], "align_corners": align}
            suffix = "{}_{}_{}".format(*size, "corners" if align else "edges")
            _case(resize, suffix, options, IMAGE, atol=1e-5)
    for mode in ("to_even_down", "to_even_up", "to_odd_down", "to_odd_up"):
        _case(resize, mode, {"mode": mode}, (1, 2, 5, 4), atol=1e-5)
    for scale in (2, 0.5, 1.5):
        scales = {"scale_height": scale, "scale_width": 2}
        _case(resize, f"scale_{scale}", scales, (1, 2, 5, 4), atol=1e-5)
        _case(resize, f"odd_scale_{scale}", {"mode": "odd_scale", **scales}, (1, 2, 5, 4), atol=1e-5)
    CASES.add(
        "bilinearresize2d_like",
        lambda sym: op(sym, resize)(sym.Variable("data"), sym.Variable("like"), mode="like", name="y"),
        {"data": (2, 3, 3, 4), "like": (2, 3, 5, 7)},
        no_grad=("like",),  # MXNet writes beyond its end
        atol=1e-5,
    )
    for suffix, options in [("one", {}), ("two", {"output_size": 2}), ("uneven", {"output_size": (4, 3)})]:
        _case("_contrib_AdaptiveAvgPooling2D", suffix, options, (2, 3, 5, 7))
        _case("_contrib_AdaptiveAvgPooling2D", suffix + "_up", options, (2, 3, 2, 2))


def _batch_norms() -> None:
    positive = {"y_moving_var": lambda rng, shape: rng.uniform(0.5, 2, shape)}
    for train in (True, False):
        end = "" if train else "_inference"
        for suffix, options in [
            ("", {}),
            ("_scale", {"fix_gamma": False, "eps": 1e-2, "momentum": 0.5}),
            ("_mean_var", {"fix_gamma": False, "output_mean_var": True}),
        ]:
            rest: dict[str, Any] = {"train": train, "values": positive, "atol": 1e-5}
            _case("_contrib_BatchNormWithReLU", "y" + suffix + end, options, IMAGE, **rest)
            if train or "mean_var" not in suffix:  # in inference MXNet gives back one channel's
                key = {"key": "y" + suffix + end, **options}
                _case("_contrib_SyncBatchNorm", "y" + suffix + end, key, IMAGE, **rest)


_norms()
_leaky()
_images()
_batch_norms()
