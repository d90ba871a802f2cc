"""``mx.recordio``: files of records, as MXNet writes and reads them."""

from __future__ import annotations

from dmod.recordio.files import MXIndexedRecordIO, MXRecordIO
from dmod.recordio.labelled import IRHeader, pack, pack_img, unpack, unpack_img
from dmod.recordio.labelled import opencv as opencv  # for whatever decodes pictures; no part of the API

__all__ = [
    "IRHeader",
    "MXIndexedRecordIO",
    "MXRecordIO",
    "pack",
    "pack_img",
    "unpack",
    "unpack_img",
]
