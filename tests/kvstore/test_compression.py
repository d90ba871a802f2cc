"""Gradient compression: what it leaves out, what it keeps, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from dmod.base import InvalidArgument
from dmod.kvstore import compression
from dmod.kvstore.compression import Compression, Compressor, decode_payload

GRAD = np.float32([0.1, 0.5, -0.5, 0.6, -0.7, 0.3, 2.0])


def test_2bit_is_what_mxnet_makes_of_the_same_gradients() -> None:
    compressor = Compressor(Compression.parse({"type": "2bit", "threshold": 0.5}))
    # MXNet 1.9.1, kvstore 'device': three pushes of GRAD on each of two devices
    expected = [[0, 1, -1, 1, -1, 0, 1], [0, 1, -1, 1, -1, 1, 1], [0, 1, -1, 1, -1, 0, 1]]
    for values in expected:
        assert (2 * compressor.rounded("w", GRAD)).tolist() == values


@pytest.mark.parametrize("size", [1, 3, 4, 5, 1001])
def test_kernels_and_numpy_give_the_same_bits(size: int) -> None:
    rng = np.random.default_rng(size)
    compressor = Compressor(Compression("2bit", 0.7))
    residual: np.ndarray = np.zeros(size, np.float32)
    for _ in range(4):
        grad = rng.normal(size=size).astype(np.float32)
        payload = compressor.encode("w", grad)
        packed = np.empty(payload.size - 4, np.uint8)
        compression._quantize(grad, residual, np.float32(0.7), packed)
        assert np.array_equal(packed, payload[4:])
        out: np.ndarray = np.empty(size, np.float32)
        compression._dequantize(packed, np.float32([0, 0.7, -0.7, 0]), out)
        assert np.array_equal(out, decode_payload(payload, "2bit", size))
        assert payload.nbytes <= grad.nbytes / 16 + 5


def test_what_2bit_leaves_out_comes_later() -> None:
    compressor = Compressor(Compression("2bit", 0.25))
    total = sum(compressor.rounded("w", np.float32([0.1])) for _ in range(100))
    assert abs(total[0] - 10) <= 0.25


def test_what_a_dropped_round_took_is_there_again() -> None:
    compressor = Compressor(Compression("2bit", 0.25))
    compressor.encode("w", GRAD)
    before = compressor.get_residuals()
    compressor.begin()
    compressor.encode("w", GRAD)
    compressor.encode("new", GRAD)
    assert not np.array_equal(compressor.get_residuals()["w"], before["w"])
    compressor.take_back()
    assert np.array_equal(compressor.get_residuals()["w"], before["w"])
    assert not compressor.get_residuals()["new"].any()
    compressor.begin()
    compressor.take_back()  # a round that nothing was sent of
    assert np.array_equal(compressor.get_residuals()["w"], before["w"])


def test_what_is_left_over_can_be_kept_and_put_back() -> None:
    one, other = (Compressor(Compression("2bit", 0.25)) for _ in range(2))
    one.encode("w", GRAD)
    other.set_residuals(one.get_residuals())
    assert np.array_equal(one.encode("w", GRAD), other.encode("w", GRAD))


def test_16_bits_round_to_the_nearest() -> None:
    bf16, fp16 = (Compressor(Compression(kind)) for kind in ("bf16", "fp16"))
    values = np.float32([1.00390625, 1.01171875, np.nan, np.inf, -3e38])
    rounded = bf16.rounded("w", values)
    assert rounded[:2].tolist() == [1.0, 1.015625]  # ties to even
    assert np.isnan(rounded[2]) and rounded[3] == np.inf
    assert fp16.rounded("w", GRAD).tolist() == GRAD.astype(np.float16).tolist()
    assert fp16.encode("w", GRAD).nbytes == bf16.encode("w", GRAD).nbytes == GRAD.nbytes // 2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "'type'"),
        ("2bit", "expected a dict"),
        ({"type": "1bit"}, "did you mean '2bit'"),
        ({"type": "2bit", "threshold": 0}, "above 0"),
        ({"type": "2bit", "threshold": "x"}, "above 0"),
        ({"type": "2bit", "limit": 1}, "unknown parameter 'limit'"),
        ({"type": "bf16", "threshold": 1}, "only 'type'"),
    ],
)
def test_parameters_without_sense_are_refused(params: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Compression.parse(params)


@pytest.mark.parametrize("payload", [b"", bytes(9), bytes(4 + 3), np.float32([np.nan, 0]).tobytes()[:6]])
def test_a_payload_that_does_not_fit_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        decode_payload(payload, "2bit", 8)
