"""What a field of a message may hold: checks, and the annotated types made of them.

A check returns the value, normalised (lists become tuples), or raises `ValueError` with what was
expected and what came. Every check bounds what it accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeAlias

from dmod.base import InvalidArgument
from dmod.ndarray.flat import FlatLayout

MAX_HEADER_NBYTES = 1 << 20
"""Most bytes of a message without its payloads."""
MAX_PAYLOAD_NBYTES = (16 << 20) + 4096
"""Most bytes of one payload frame: a piece, which is never above 16 MiB, and a little slack."""
MAX_FRAMES = 4096
"""Most frames of a message, its header among them."""
MAX_TOTAL_NBYTES = 64 << 20
"""Most bytes of a message in all: room for a piece with several optimizer states."""

ROLES = ("worker", "server", "scheduler")
MODES = ("update", "sum", "async")
DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64")
ENCODED = ("2bit", "bfloat16", "half")
"""What the payloads of compressed contributions are called, in place of a dtype; see `compression`."""
ERROR_CODES = ("unknown_key", "invalid", "mismatch", "not_ready", "peer_lost", "fenced", "protocol", "failed")

Key: TypeAlias = int | str
"""What a user names an array by."""


class Member(NamedTuple):
    """One process of a view."""

    role: str
    rank: int
    incarnation: int
    host: str
    pid: int
    addresses: tuple[str, ...]


class Cut(NamedTuple):
    """One piece of a key: elements ``[start, stop)`` of its buffer, kept by server `server`."""

    start: int
    stop: int
    server: int


class PieceRef(NamedTuple):
    """One piece of a key in one round; rounds count from 1 in every epoch."""

    key: Key
    piece: int
    round: int


def text(limit: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if type(value) is not str:
            raise ValueError(f"expected text, got {type(value).__name__}")
        if len(value) > limit:
            raise ValueError(f"expected at most {limit} characters, got {len(value)}")
        return value

    return check


def integer(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int:
            raise ValueError(f"expected a whole number, got {type(value).__name__}")
        if not low <= value <= high:
            raise ValueError(f"expected {low} to {high}, got {value}")
        return value

    return check


def optional(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else inner(value)


def choice(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if type(value) is not str or value not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, got {_shown(value)}")
        return value

    return check


def boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"expected true or false, got {type(value).__name__}")
    return value


def seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1e9:
        raise ValueError(f"expected seconds, got {_shown(value)}")
    return float(value)


def list_of(inner: Callable[[Any], Any], limit: int) -> Callable[[Any], tuple[Any, ...]]:
    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list, got {type(value).__name__}")
        if len(value) > limit:
            raise ValueError(f"expected at most {limit} entries, got {len(value)}")
        return tuple([inner(entry) for entry in value])

    return check


def pieces(value: Any) -> tuple[PieceRef, ...]:
    """A list of `PieceRef`: the one that is long and frequent, so it is checked in one go."""
    if not isinstance(value, list | tuple) or len(value) > MAX_FRAMES - 2:
        raise ValueError(f"expected at most {MAX_FRAMES - 2} pieces, got {_shown(value)}")
    refs = []
    for entry in value:
        if (type(entry) is not PieceRef and not isinstance(entry, list | tuple)) or len(entry) != 3:
            raise ValueError(f"expected a list of 3, got {_shown(entry)}")
        name, piece, round = entry
        if type(name) is not str or len(name) > 1024:
            key(name)
        if type(piece) is not int or not 0 <= piece < 1 << 31:
            raise ValueError(f"expected a piece from 0 to {(1 << 31) - 1}, got {_shown(piece)}")
        if type(round) is not int or not 0 <= round < 1 << 53:
            raise ValueError(f"expected a round from 0 to {(1 << 53) - 1}, got {_shown(round)}")
        refs.append(entry if type(entry) is PieceRef else PieceRef(name, piece, round))
    return tuple(refs)


def _listed(*entries: Any) -> list[Any]:
    return list(entries)


def row(make: Callable[..., Any], *columns: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(columns):
            raise ValueError(f"expected a list of {len(columns)}, got {_shown(value)}")
        return make(*[column(entry) for column, entry in zip(columns, value, strict=True)])

    return check


def key(value: Any) -> Key:
    if type(value) is int and -(1 << 63) <= value < 1 << 63:
        return value
    if type(value) is str and len(value) <= 1024:
        return value
    raise ValueError(f"expected a key (text, or a whole number), got {_shown(value)}")


def mapping(value: Any) -> dict[str, str]:
    if type(value) is not dict or len(value) > 256:
        raise ValueError(f"expected a mapping of text to text, got {_shown(value)}")
    return {text(255)(name): text(4096)(entry) for name, entry in value.items()}


def plain(value: Any, depth: int = 0) -> Any:
    """None, booleans, numbers, text and lists and mappings of these, at most 8 levels deep."""
    if value is None or type(value) in (bool, float, str):
        return value
    if type(value) is int and -(1 << 63) <= value < 1 << 63:
        return value
    if depth < 8 and isinstance(value, list | tuple):
        return [plain(entry, depth + 1) for entry in value]
    if depth < 8 and type(value) is dict:
        if not all(type(name) in (str, int) for name in value):
            raise ValueError("expected a mapping with text or whole numbers as keys")
        return {name: plain(entry, depth + 1) for name, entry in value.items()}
    raise ValueError(f"expected plain values, got {type(value).__name__}")


def config(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError(f"expected a mapping, got {type(value).__name__}")
    checked: dict[str, Any] = plain(value)
    return checked


_SIZE = integer(0, 1 << 48)
_SEGMENT = row(_listed, integer(0, 1 << 31), text(1024), _SIZE, _SIZE, list_of(_SIZE, 32))


def layout(value: Any) -> FlatLayout:
    if isinstance(value, FlatLayout):
        value = value.to_wire()
    wire = row(_listed, choice(DTYPES), _SIZE, list_of(_SEGMENT, 1 << 16))(value)
    try:
        return FlatLayout.from_wire(wire)
    except InvalidArgument as error:
        raise ValueError(str(error)) from None


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


_NAME, _TEXT, _RANK = text(255), text(1 << 16), integer(0, (1 << 20) - 1)
_INCARNATION, _COUNT = integer(1, (1 << 63) - 1), integer(0, (1 << 53) - 1)
_INDEX = integer(0, (1 << 31) - 1)

Name: TypeAlias = Annotated[str, _NAME]
Text: TypeAlias = Annotated[str, _TEXT]
Role: TypeAlias = Annotated[str, choice(ROLES)]
Rank: TypeAlias = Annotated[int, _RANK]
Incarnation: TypeAlias = Annotated[int, _INCARNATION]
Count: TypeAlias = Annotated[int, _COUNT]
KeyField: TypeAlias = Annotated[Key, key]
Index: TypeAlias = Annotated[int, _INDEX]
Flag: TypeAlias = Annotated[bool, boolean]
Seconds: TypeAlias = Annotated[float, seconds]
Names: TypeAlias = Annotated[tuple[str, ...], list_of(text(1024), 4096)]
Counts: TypeAlias = Annotated[tuple[int, ...], list_of(_COUNT, 1 << 16)]
Pieces: TypeAlias = Annotated[tuple[PieceRef, ...], pieces]
Cuts: TypeAlias = Annotated[tuple[Cut, ...], list_of(row(Cut, _SIZE, _SIZE, _RANK), 1 << 16)]
_MEMBER = row(Member, choice(ROLES), _RANK, _INCARNATION, _NAME, _COUNT, list_of(text(1024), 16))
Members: TypeAlias = Annotated[tuple[Member, ...], list_of(_MEMBER, 1 << 16)]
Dtypes: TypeAlias = Annotated[tuple[str, ...], list_of(choice(DTYPES), 16)]
NodeRole: TypeAlias = Annotated[str, choice(("worker", "server"))]
MaybeRank: TypeAlias = Annotated[int | None, optional(_RANK)]
Addresses: TypeAlias = Annotated[tuple[str, ...], list_of(text(1024), 16)]
Fingerprint: TypeAlias = Annotated[dict[str, str], mapping]
LayoutField: TypeAlias = Annotated[FlatLayout, layout]
Mode: TypeAlias = Annotated[str, choice(MODES)]
FrameCount: TypeAlias = Annotated[int, integer(0, MAX_FRAMES - 1)]
Config: TypeAlias = Annotated[dict[str, Any], config]
Encoding: TypeAlias = Annotated[str, choice((*DTYPES, *ENCODED))]
ErrorCode: TypeAlias = Annotated[str, choice(ERROR_CODES)]
