"""Messages as frames: a msgpack header, then the payloads as they are.

Frame 0 is ``[protocol version, number of the message, field, field, ...]`` in the order in which the
message declares its fields. The frames after it are raw arrays; `decode` hands them on as views of
what was received, `encode` as views of what it was given, so that nothing is copied in between.

It refuses: another protocol version (but see `versions`), unknown messages, missing, superfluous or malformed
fields, more or larger frames than `messages` allows, another number of payloads than the message announces.
All of these raise `ProtocolError`; nothing else is raised, whatever the frames hold.

The messages that training repeats at every step have a short form, which takes a tenth of the time: one
frame that begins with a byte which msgpack never uses, then the message's number and its fields.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgpack

from dmod.base import ProtocolError
from dmod.kvstore.actions import Outgoing, Staged
from dmod.kvstore.messages import (
    MAX_FRAMES,
    MAX_HEADER_NBYTES,
    MAX_PAYLOAD_NBYTES,
    MAX_TOTAL_NBYTES,
    MESSAGES,
    SHORT_MESSAGES,
    Again,
    Init,
    Message,
    Same,
    field_checks,
)
from dmod.kvstore.versions import ForeignRefuse, foreign_frame, read_foreign

__all__ = ["PROTOCOL_VERSION", "SHORT_FORM", "SHORT_NBYTES", "decode", "encode"]

PROTOCOL_VERSION = 4
"""Goes up whenever there is a new message, or one changes its fields."""
_SHORT = struct.Struct("<BB6xQQQQ")
SHORT_FORM = 0xC1
SHORT_NBYTES = _SHORT.size
_LARGEST = (1 << 53) - 1

_NUMBERS = {cls: number for number, cls in MESSAGES.items()}


def encode(message: Message, payloads: Sequence[Outgoing] = ()) -> list[bytes | memoryview]:
    """The frames of a message.

    Parameters
    ----------
    message : Message
    payloads : sequence of C-contiguous buffers
        They are not copied. Those of an `Again` stay where they are.

    Raises
    ------
    ProtocolError
        The message is larger than the protocol allows, or goes with another number of payloads.
    """
    if type(message) is Again:
        for payload in payloads:
            if type(payload) is Staged:
                payload.fill()  # it does not travel: the server knows where it lies
        return [_SHORT.pack(SHORT_FORM, 1, message.request, message.standing, message.epoch, message.round)]
    if type(message) is Same:
        return [_SHORT.pack(SHORT_FORM, 2, message.request, message.place, 0, 0)]
    if type(message) is ForeignRefuse:
        return [msgpack.packb(foreign_frame(message))]
    values: list[Any] = [getattr(message, name) for name, _ in field_checks(type(message))]
    if isinstance(message, Init):
        values[values.index(message.layout)] = message.layout.to_wire()
    try:
        header = msgpack.packb([PROTOCOL_VERSION, _NUMBERS[type(message)], *values])
    except (ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(f"{type(message).__name__}: cannot be encoded: {error}") from None
    frames: list[bytes | memoryview] = [header]
    frames += [_bytes_of(payload) for payload in payloads]
    _check_sizes(frames)
    _check_count(message, len(payloads))
    return frames


def decode(frames: Sequence[bytes | memoryview]) -> tuple[Message, list[memoryview]]:
    """The message that `frames` hold, and its payloads as views of them.

    Raises
    ------
    ProtocolError
        The frames are not a message, for the reason given.
    """
    if not frames:
        raise ProtocolError("a message without frames")
    if len(frames) == 1 and len(frames[0]) == _SHORT.size and frames[0][0] == SHORT_FORM:
        return _decode_short(frames[0]), []
    _check_sizes(frames)
    message = _decode_header(frames[0])
    _check_count(message, len(frames) - 1)
    return message, [memoryview(frame) for frame in frames[1:]]


def _decode_header(frame: bytes | memoryview) -> Message:
    try:
        header = msgpack.unpackb(frame, strict_map_key=False)
    except (
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        msgpack.exceptions.UnpackException,
    ) as error:
        reason = str(error) or type(error).__name__
        raise ProtocolError(f"a header that is not msgpack: {reason[:200]}") from None
    if type(header) is not list or len(header) < 2:
        raise ProtocolError("a header that is not a list of version, number and fields")
    version, number, *values = header
    if type(version) is not int or version != PROTOCOL_VERSION:
        return read_foreign(header, PROTOCOL_VERSION)
    if type(number) is not int or number not in MESSAGES:
        raise ProtocolError(f"no message has the number {str(number)[:40]}")
    cls = MESSAGES[number]
    if len(values) != len(field_checks(cls)):
        raise ProtocolError(f"{cls.__name__}: {len(values)} fields, expected {len(field_checks(cls))}")
    return cls(*values)


def _decode_short(frame: bytes | memoryview) -> Message:
    _, kind, request, second, third, fourth = _SHORT.unpack(frame)
    if kind not in SHORT_MESSAGES or max(request, second, third, fourth) > _LARGEST:
        raise ProtocolError(f"a short message of kind {kind} with {request}, {second}, {third}, {fourth}")
    return Same(request, second) if kind == 2 else Again(request, second, third, fourth)


def _bytes_of(payload: Outgoing) -> memoryview:
    if type(payload) is Staged:
        payload = payload.fill()
    view = memoryview(payload)  # type: ignore[arg-type]  # numpy's stubs know buffers from 3.12 on
    try:
        # A view of no elements cannot be cast: its strides may be anything.
        return view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError as error:
        raise ProtocolError(f"a payload that is not one block of memory: {error}") from None


def _check_sizes(frames: Sequence[bytes | memoryview]) -> None:
    if len(frames) > MAX_FRAMES:
        raise ProtocolError(f"a message of {len(frames)} frames, at most {MAX_FRAMES} are allowed")
    sizes = [frame.nbytes if isinstance(frame, memoryview) else len(frame) for frame in frames]
    if sizes[0] > MAX_HEADER_NBYTES:
        raise ProtocolError(f"a header of {sizes[0]} bytes, at most {MAX_HEADER_NBYTES} are allowed")
    if len(sizes) > 1 and max(sizes[1:]) > MAX_PAYLOAD_NBYTES:
        raise ProtocolError(f"a payload of {max(sizes[1:])} bytes, at most {MAX_PAYLOAD_NBYTES} are allowed")
    if sum(sizes) > MAX_TOTAL_NBYTES:
        raise ProtocolError(f"a message of {sum(sizes)} bytes, at most {MAX_TOTAL_NBYTES} are allowed")


def _check_count(message: Message, count: int) -> None:
    if count != message.payload_count():
        name = type(message).__name__
        raise ProtocolError(f"{name}: {count} payloads, expected {message.payload_count()}")
