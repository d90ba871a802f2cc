"""What a record holds: a header with labels and numbers, and mostly a picture."""

from __future__ import annotations

import struct
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from dmod.base import FormatError, InvalidArgument, MXNetError

__all__ = ["IRHeader", "opencv", "pack", "pack_img", "unpack", "unpack_img"]

_LABELLED = struct.Struct("<IfQQ")
_JPEG_FORMATS = (".jpg", ".jpeg")


def opencv() -> ModuleType:
    """OpenCV, which decodes and encodes pictures here as it does in MXNet.

    Raises
    ------
    MXNetError
        It is not installed; the message says how to install it.
    """
    try:
        import cv2
    except ImportError as error:
        raise MXNetError(
            f"pictures need OpenCV ({error}); install it with: pip install dmod[image]"
        ) from None
    return cv2


class IRHeader(NamedTuple):
    """What stands before the picture in a record.

    Attributes
    ----------
    flag : int
        How many labels there are beyond the one in the header: 0, or the length of the array.
    label : float or array of float32
    id : int
        The picture's number, up to 2**64 - 1.
    id2 : int
    """

    flag: int
    label: Any
    id: int
    id2: int


def pack(header: IRHeader, s: bytes) -> bytes:
    """The payload of a record with `header` and the bytes `s`.

    Examples
    --------
    >>> header, s = unpack(pack(IRHeader(0, [1, 2], 2574, 0), b'picture'))
    >>> header.label.tolist(), header.id, s
    ([1.0, 2.0], 2574, b'picture')
    """
    header = IRHeader(*header)
    labels = b""
    if isinstance(header.label, (int, float, np.number)):
        flag, first = 0, float(header.label)
    else:
        array = np.asarray(header.label, dtype="<f4")
        flag, first, labels = array.size, 0.0, array.tobytes()
    try:
        head = _LABELLED.pack(flag, first, int(header.id), int(header.id2))
    except struct.error:
        raise InvalidArgument(
            f"IRHeader: id={header.id}, id2={header.id2}: expected whole numbers from 0 to 2**64 - 1"
        ) from None
    if not isinstance(s, (bytes, bytearray, memoryview)):
        raise TypeError(f"pack() needs bytes, got {type(s).__name__}")
    return head + labels + bytes(s)


def unpack(s: bytes) -> tuple[IRHeader, bytes]:
    """The header and the remaining bytes of a record's payload.

    Raises
    ------
    FormatError
        `s` is shorter than a header with its labels.
    """
    if len(s) < _LABELLED.size:
        raise FormatError(f"record of {len(s)} bytes: an IRHeader takes {_LABELLED.size}")
    flag, label, number, number2 = _LABELLED.unpack_from(s)
    if not flag:
        return IRHeader(0, label, number, number2), s[_LABELLED.size :]
    end = _LABELLED.size + 4 * flag
    if len(s) < end:
        raise FormatError(f"record of {len(s)} bytes: an IRHeader with {flag} labels takes {end}")
    labels = np.frombuffer(s, "<f4", flag, _LABELLED.size).copy()
    return IRHeader(flag, labels, number, number2), s[end:]


def pack_img(header: IRHeader, img: np.ndarray, quality: int = 95, img_fmt: str = ".jpg") -> bytes:
    """The payload of a record with a picture.

    Parameters
    ----------
    header : IRHeader
    img : numpy.ndarray
        Of shape (height, width) or (height, width, channels), uint8, channels in OpenCV's order (blue first).
    quality : int
        For JPEG 1 to 100, for PNG the compression, 1 to 9.
    img_fmt : str
        '.jpg', '.png' or another ending that OpenCV knows.
    """
    cv2 = opencv()
    parameters: list[int] = []
    if img_fmt.lower() in _JPEG_FORMATS:
        parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    elif img_fmt.lower() == ".png":
        parameters = [cv2.IMWRITE_PNG_COMPRESSION, quality]
    try:
        done, encoded = cv2.imencode(img_fmt, img, parameters)
    except cv2.error as error:
        raise InvalidArgument(f"pack_img: no {img_fmt!r} picture can be made of this: {error}") from None
    if not done:
        raise InvalidArgument(f"pack_img: OpenCV could not encode the picture as {img_fmt!r}")
    return pack(header, encoded.tobytes())


def unpack_img(s: bytes, iscolor: int = -1) -> tuple[IRHeader, np.ndarray]:
    """The header and the decoded picture of a record's payload.

    Parameters
    ----------
    s : bytes
    iscolor : int
        1 for colour, 0 for grey, -1 for what the picture is.

    Returns
    -------
    header : IRHeader
    img : numpy.ndarray
        uint8, of shape (height, width[, channels]), channels in OpenCV's order (blue first).

    Raises
    ------
    FormatError
        The bytes after the header are no picture that OpenCV can decode.
    """
    header, encoded = unpack(s)
    img = opencv().imdecode(np.frombuffer(encoded, np.uint8), iscolor) if encoded else None
    if img is None:
        raise FormatError(f"record with id {header.id}: its {len(encoded)} bytes are no picture")
    return header, img
