"""Image files to arrays: `imdecode`, `imread`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dmod.base import FormatError, InvalidArgument
from dmod.image.pixels import as_ndarray
from dmod.ndarray.ndarray import NDArray
from dmod.recordio import opencv

__all__ = ["decode", "imdecode", "imread"]


def decode(data: Any, flag: int = 1, to_rgb: bool | int = True, source: str = "imdecode") -> np.ndarray:
    """The pixels of an encoded image, uint8 (height, width, 3), or (height, width, 1) for `flag` 0.

    Parameters
    ----------
    data : bytes, bytearray, memoryview or numpy.ndarray of uint8
    flag : int
        0 for grey, above 0 for colour.
    to_rgb : bool
        Red first; else blue first.
    source : str
        Where `data` comes from, for errors.

    Raises
    ------
    FormatError
        The data is empty, or no image.
    """
    cv2 = opencv()
    if flag < 0:
        raise InvalidArgument(f"{source}: flag={flag}, expected 0 for grey or 1 for colour")
    encoded = np.frombuffer(data, np.uint8)
    if not encoded.size:
        raise FormatError(f"{source}: no bytes, expected an image file's")
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR if flag else cv2.IMREAD_GRAYSCALE)
        reason = "not an image, of an unknown format, or truncated"
    except cv2.error as error:
        pixels, reason = None, str(error.err)
    if pixels is None:
        raise FormatError(
            f"{source}: {encoded.size} bytes, which begin with {encoded[:8].tobytes()!r}, cannot be decoded: "
            f"{reason}"
        )
    if not flag:
        return pixels[:, :, None]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels) if to_rgb else pixels


def imdecode(buf: Any, flag: int = 1, to_rgb: bool | int = 1, out: NDArray | None = None) -> NDArray:
    """Decode an image.

    Parameters
    ----------
    buf : bytes, bytearray, memoryview, numpy.ndarray or NDArray
        A JPEG, PNG or other image file.
    flag : {0, 1}
        1 gives three channels, 0 one of grey.
    to_rgb : bool
        True puts red first, false blue, as OpenCV does.
    out : NDArray, uint8, shape (height, width, channels), optional
        Filled and returned.

    Returns
    -------
    NDArray, uint8, shape (height, width, channels)

    Raises
    ------
    InvalidArgument
        `buf` or `out` is of a wrong type or shape.
    FormatError
        `buf` is empty or no image.
    """
    if isinstance(buf, NDArray):
        buf = buf.asnumpy()
    if isinstance(buf, np.ndarray):
        if buf.dtype != np.uint8:
            raise InvalidArgument(
                f"imdecode: buf has dtype {buf.dtype}, expected the bytes of a file as uint8"
            )
        buf = np.ascontiguousarray(buf).reshape(-1)
    elif not isinstance(buf, (bytes, bytearray, memoryview)):
        raise InvalidArgument(
            f"imdecode: buf is a {type(buf).__name__}, expected bytes, a bytearray or an array of uint8"
        )
    return _given(decode(buf, flag, to_rgb), out, "imdecode")


def imread(filename: str, flag: int = 1, to_rgb: bool | int = True, out: NDArray | None = None) -> NDArray:
    """Read and decode an image file; see `imdecode`.

    Raises
    ------
    InvalidArgument
        The file cannot be read.
    FormatError
        It is empty or no image.
    """
    try:
        data = Path(filename).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"imread({str(filename)!r}): cannot be read: {error.strerror}") from error
    return _given(decode(data, flag, to_rgb, f"imread({str(filename)!r})"), out, "imread")


def _given(pixels: np.ndarray, out: NDArray | None, what: str) -> NDArray:
    """The pixels as an NDArray, or in `out`."""
    if out is None:
        return as_ndarray(pixels)
    if out.shape != pixels.shape or out.dtype is not np.uint8:
        raise InvalidArgument(
            f"{what}: out is {np.dtype(out.dtype)} {out.shape}, the image uint8 {pixels.shape}"
        )
    out[:] = as_ndarray(pixels)
    return out
