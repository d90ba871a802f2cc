"""Decoding, sizes, crops: what is refused, and how it is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import FormatError, InvalidArgument, MXNetError
from tests.oracle.image_cases import FOLDER, image

JPEG = (FOLDER / "wide.jpg").read_bytes()


def test_importing_dmod_does_not_import_opencv() -> None:
    code = "import sys, dmod; assert 'cv2' not in sys.modules; dmod.img.scale_down((4, 4), (2, 2))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_without_opencv_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MXNetError, match=r"pip install dmod\[image\]"):
        mx.img.imdecode(JPEG)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_every_kind_of_bytes_is_decoded(wrap: Any) -> None:
    decoded = mx.image.imdecode(wrap(JPEG))
    assert decoded.shape == (48, 64, 3)
    assert decoded.dtype is np.uint8
    as_array = mx.image.imdecode(mx.nd.array(np.frombuffer(JPEG, np.uint8), dtype="uint8"))
    np.testing.assert_array_equal(decoded.asnumpy(), as_array.asnumpy())


def test_out_is_filled_and_returned() -> None:
    out = mx.nd.zeros((48, 64, 3), dtype="uint8")
    assert mx.image.imdecode(JPEG, out=out) is out
    np.testing.assert_array_equal(out.asnumpy(), mx.image.imdecode(JPEG).asnumpy())
    with pytest.raises(InvalidArgument, match=r"out is float32 \(1,\), the image uint8 \(48, 64, 3\)"):
        mx.image.imdecode(JPEG, out=mx.nd.zeros(1))


@pytest.mark.parametrize("data", [b"", b"hello world", JPEG[:30]])
def test_bytes_that_are_no_image_are_named(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no bytes" if not data else f"{len(data)} bytes"):
        mx.image.imdecode(data)
    (tmp_path / "broken.jpg").write_bytes(data)
    with pytest.raises(FormatError, match=r"broken\.jpg"):
        mx.image.imread(str(tmp_path / "broken.jpg"))


def test_unusable_arguments_of_imdecode_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="buf is a str"):
        mx.image.imdecode("text")
    with pytest.raises(InvalidArgument, match="dtype float64"):
        mx.image.imdecode(np.zeros(9))
    with pytest.raises(InvalidArgument, match="flag=-1"):
        mx.image.imdecode(JPEG, -1)
    with pytest.raises(InvalidArgument, match="nowhere"):
        mx.image.imread(str(tmp_path / "nowhere.jpg"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda im: mx.image.imresize(im, 0, 5), "to 0 x 5 pixels"),
        (lambda im: mx.image.imresize(im, 5, 5, 7), "interp=7"),
        (lambda im: mx.image.imresize(im.astype("int32"), 5, 5), "int32"),
        (lambda im: mx.image.imresize(im[0], 5, 5), r"expected an image of shape .* got \(64, 3\)"),
        (lambda im: mx.image.resize_short(im, 0), "resize_short"),
        (lambda im: mx.image.fixed_crop(im, 64, 0, 5, 5), "outside"),
        (lambda im: mx.image.fixed_crop(im, -1, 0, 5, 5), "outside"),
        (lambda im: mx.image.random_size_crop(im, (5, 5), 0.5, (0, 1)), r"ratio=\(0, 1\)"),
        (lambda im: mx.image.copyMakeBorder(im, -1, 0, 0, 0), "top=-1"),
        (lambda im: mx.image.copyMakeBorder(im, 1, 0, 0, 0, 9), "type=9"),
        (lambda im: mx.image.imrotate(im.astype("float32")[0], 3), r"src has shape \(64, 3\)"),
        (lambda im: mx.image.imrotate(im.astype("float32"), 3, True, True), "zoom_in and zoom_out"),
        (lambda im: mx.image.imresize(im, 5, 5, out=mx.nd.zeros(3)), "out has shape"),
    ],
)
def test_impossible_sizes_and_places_are_refused(call: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        call(image(mx))


def test_wrong_types_are_type_errors() -> None:
    with pytest.raises(TypeError, match="got ndarray"):
        mx.image.imresize(np.zeros((3, 3, 3)), 2, 2)
    with pytest.raises(TypeError, match="size is 5"):
        mx.image.center_crop(image(mx), 5)
    with pytest.raises(TypeError, match="expected float32"):
        mx.image.imrotate(image(mx), 5)
    with pytest.raises(TypeError, match="one angle"):
        mx.image.imrotate(image(mx).astype("float32"), mx.nd.array([5]))
    with pytest.raises(TypeError, match="colour"):
        mx.image.random_size_crop(image(mx), (5, 5), 0.5, (1, 1), colour=1)


def test_one_channel_stays_one_channel() -> None:
    gray = image(mx, flag=0)
    assert mx.image.imresize(gray, 5, 4).shape == (4, 5, 1)
    assert mx.image.copyMakeBorder(gray, 1, 1, 1, 1).shape == (50, 66, 1)
    assert mx.image.HorizontalFlipAug(1)(gray).shape == gray.shape
    np.testing.assert_array_equal(mx.image.HorizontalFlipAug(1)(gray).asnumpy(), gray.asnumpy()[:, ::-1])


def test_interpolation_9_and_10_are_known_to_imresize_too() -> None:
    tall = image(mx)
    for size, method in (((80, 60), 2), ((20, 10), 3), ((80, 10), 1)):
        expected = mx.image.imresize(tall, *size, method).asnumpy()
        np.testing.assert_array_equal(mx.image.imresize(tall, *size, 9).asnumpy(), expected)
    candidates = [mx.image.imresize(tall, 20, 10, method).asnumpy() for method in range(5)]
    found = mx.image.imresize(tall, 20, 10, 10).asnumpy()
    assert any((found == candidate).all() for candidate in candidates)
