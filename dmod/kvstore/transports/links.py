"""A connection to a process of the same host: a Unix-domain socket beside which memory is shared.

A packet is a length, a msgpack list and the frames that travel in it. The list says of every frame either
how long it is, if it travels, or where it lies in a segment of the sender; a segment is announced in the
first packet that refers to it, and its file descriptor comes with that packet. So a large array costs as
much as a small one: nothing is copied, and the socket is the doorbell.

Everything that a peer says is checked: sizes, places and descriptors. What is not as it should be raises
`ProtocolError`, and the endpoint closes the connection.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from dmod.base import ProtocolError
from dmod.kvstore.messages import MAX_FRAMES, MAX_HEADER_NBYTES, MAX_TOTAL_NBYTES
from dmod.kvstore.transports.base import Frame
from dmod.kvstore.transports.segments import Arena, MappedSegment, Place

__all__ = ["Link", "credentials", "head_of_one"]

_JOIN_BELOW_NBYTES = 1 << 17
_BUFFER_NBYTES = 1 << 18
_SOCKET_NBYTES = 1 << 20
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_PREFIX = struct.Struct("<II")  # bytes of the list, bytes of all frames behind it
_MAX_LIST_NBYTES = 40 * MAX_FRAMES
_MAX_INLINE_NBYTES = MAX_TOTAL_NBYTES + MAX_HEADER_NBYTES
_MAX_FDS = 64  # of one packet
_FDS_SPACE = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)


_HEAD_OF_ONE_NBYTES = _PREFIX.size + 4
_HEADS_OF_ONE: dict[int, bytes] = {n: _PREFIX.pack(4, n) + msgpack.packb([[], [n]]) for n in range(1, 128)}
"""What comes before the frame, in packets with one short one; most of those that are not data."""


class Link:
    """One end of a connection.

    Parameters
    ----------
    sock : socket
        Connected; the link owns it.
    arena : Arena
        This process's.

    Attributes
    ----------
    closed : bool
        By either end.
    """

    def __init__(self, sock: socket.socket, arena: Arena):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_NBYTES)  # or what the system allows
        self._socket, self._arena = sock, arena
        self.closed = False
        self._announced: set[int] = set()
        self._segments: dict[int, MappedSegment] = {}
        self._fds: deque[int] = deque()
        self._outbox: deque[tuple[memoryview, Sequence[int]]] = deque()  # with the descriptors to send
        self._buffer = bytearray(_BUFFER_NBYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._large: memoryview | None = None  # a packet that does not fit into the buffer
        self._large_filled = self._large_list = 0

    def fileno(self) -> int:
        """For pollers."""
        return self._socket.fileno()

    def peer_pid(self) -> int:
        """The process at the other end; 0 if it cannot be seen from here."""
        return credentials(self._socket)[0]

    @property
    def is_idle(self) -> bool:
        """Whether it is open, nothing is left to be sent, and what has been read was whole messages."""
        return not (self.closed or self._outbox or self.is_halfway)

    @property
    def is_halfway(self) -> bool:
        """Whether a part of a message has been read."""
        return self._filled > 0 or self._large is not None

    @property
    def blocked(self) -> bool:
        """Whether something is left to be sent."""
        return bool(self._outbox)

    def linger(self, timeout_s: float) -> None:
        """Give what is left to be sent so long to leave."""
        self._socket.settimeout(timeout_s)
        self.flush()

    def cut(self) -> None:
        """Let both ends find that the connection has ended."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; what has been received stays readable."""
        self.closed = True
        self._outbox.clear()
        while self._fds:
            os.close(self._fds.popleft())
        self._socket.close()

    # ---- sending

    def send(self, frames: Sequence[Frame]) -> None:
        """Send a message, or what the socket takes of it; `flush` sends the rest."""
        if self.closed:
            return
        if len(frames) == 1 and (head := _HEADS_OF_ONE.get(len(frames[0]))) is not None:
            self._push_out((head + frames[0],), ())
            return
        entries: list[int | Place] = []
        inline: list[Frame] = []
        new: dict[int, int] = {}
        nbytes = 0
        for frame in frames:
            length = len(frame)
            place = self._place_of(frame)
            if place is None:
                entries.append(length)
                inline.append(frame)
                nbytes += length
            else:
                entries.append(place)
                if place[0] not in self._announced:
                    new[place[0]] = self._arena.descriptor(place[0])[1]
        head = msgpack.packb([list(new.items()), entries])
        prefix = _PREFIX.pack(len(head), nbytes)
        parts: list[Frame] = [prefix, head, *inline]
        if nbytes < (1 + len(inline)) * _JOIN_BELOW_NBYTES:
            parts = [b"".join(parts)]  # a copy of small ones costs less than more calls
        self._announced |= new.keys()
        self._push_out(parts, [self._arena.descriptor(number)[0] for number in new])

    def _place_of(self, frame: Frame) -> Place | None:
        if isinstance(frame, bytes) or not len(frame):
            return None
        address = np.frombuffer(frame, np.uint8).__array_interface__["data"][0]
        return self._arena.find(address, len(frame))

    def _push_out(self, parts: Sequence[Frame], fds: Sequence[int]) -> None:
        if not self._outbox and not fds and len(parts) == 1:
            try:
                sent = self._socket.send(parts[0])
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()  # whether that matters is for the scheduler to find out
                return
            if sent < len(parts[0]):
                self._outbox.append((memoryview(parts[0])[sent:], ()))
            return
        self._outbox.append((memoryview(parts[0]), fds))
        self._outbox.extend((memoryview(part), ()) for part in parts[1:])
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes."""
        try:
            while self._outbox:
                first, fds = self._outbox[0]
                # Descriptors go with the first byte of their packet.
                sent = _send_fds(self._socket, first, fds) if fds else self._socket.send(first)
                if sent == len(first):
                    self._outbox.popleft()
                else:
                    self._outbox[0] = (first[sent:], ())
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    # ---- receiving

    def receive(self) -> list[list[Frame]]:
        """Messages that have come: all those that one read has completed, so that few are in memory at once.

        Raises
        ------
        ProtocolError
            The peer does not keep to the protocol.
        """
        messages: list[list[Frame]] = []
        while not messages and not self.closed and self._fill():
            if self._large is None and (frame := self._only_frame()) is not None:
                return [[frame]]
            while (packet := self._next_packet()) is not None:
                messages.append(self._frames(*packet))
        return messages

    def _fill(self) -> bool:
        """Read what is there; False if nothing is."""
        if self._large is not None:
            into = self._large[self._large_filled :]
        else:
            into = self._view[self._filled :]
        try:
            count, ancillary, flags, _ = self._socket.recvmsg_into([into], _FDS_SPACE)
        except BlockingIOError:
            return False
        except OSError:
            count, ancillary, flags = 0, [], 0
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC or len(self._fds) > _MAX_FDS:
            raise ProtocolError("more file descriptors than a packet may have")
        if not count:
            self.close()
            return False
        if self._large is not None:
            self._large_filled += count
        else:
            self._filled += count
        return True

    def _only_frame(self) -> bytes | None:
        """The frame of what has been read, if that is one packet with one short frame."""
        head = _HEADS_OF_ONE.get(self._filled - _HEAD_OF_ONE_NBYTES)
        if head is None or not self._buffer.startswith(head):
            return None
        frame = bytes(self._view[_HEAD_OF_ONE_NBYTES : self._filled])
        self._filled = 0
        return frame

    def _next_packet(self) -> tuple[memoryview, int] | None:
        """The next whole packet without its prefix, in memory of its own, and the length of its list."""
        if self._large is not None:
            if self._large_filled < len(self._large):
                return None
            packet, self._large = self._large, None
            return packet, self._large_list
        if self._filled < _PREFIX.size:
            return None
        listed, inline = _PREFIX.unpack_from(self._buffer)
        if listed > _MAX_LIST_NBYTES or inline > _MAX_INLINE_NBYTES:
            raise ProtocolError(f"a packet of {listed} + {inline} bytes")
        start, stop = _PREFIX.size, _PREFIX.size + listed + inline
        if stop <= self._filled:
            packet = memoryview(bytes(self._view[start:stop]))
            rest = self._filled - stop
            if rest:
                self._view[:rest] = bytes(self._view[stop : self._filled])
            self._filled = rest
            return packet, listed
        if stop > _BUFFER_NBYTES:
            self._large, self._large_list = memoryview(bytearray(listed + inline)), listed
            self._large_filled = self._filled - start
            self._large[: self._large_filled] = self._view[start : self._filled]
            self._filled = 0
        return None

    def _frames(self, packet: memoryview, listed: int) -> list[Frame]:
        try:
            new, entries = msgpack.unpackb(packet[:listed])
            for number, nbytes in new:
                self._map(number, nbytes)
            frames: list[Frame] = []
            position = listed
            for entry in entries:
                if type(entry) is int:
                    if not 0 <= entry <= len(packet) - position:
                        raise ProtocolError(f"a frame of {entry} bytes in a packet of {len(packet)}")
                    frames.append(packet[position : position + entry])
                    position += entry
                else:
                    number, offset, nbytes = entry
                    frames.append(self._segments[number].view(offset, nbytes))
        except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as error:
            raise ProtocolError(f"a packet that is none of ours: {error!r:.200}") from None
        return frames

    def _map(self, number: Any, nbytes: Any) -> None:
        if type(number) is not int or type(nbytes) is not int or number in self._segments or not self._fds:
            raise ProtocolError("a segment without a number or a file descriptor of its own")
        self._segments[number] = MappedSegment(self._fds.popleft(), nbytes)


def head_of_one(nbytes: int) -> bytes:
    """What comes before the frame, in a packet with a single one of 1 to 127 bytes."""
    return _HEADS_OF_ONE[nbytes]


def credentials(sock: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end of a Unix-domain socket."""
    pid, uid, _ = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, uid


def _send_fds(sock: socket.socket, data: memoryview, fds: Sequence[int]) -> int:
    rights = array.array("i", fds)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
