"""MXNet's ``.states`` files, which are pickles, read and written without pickle.

A pickle is a program for a small machine that may call anything. The machine here knows containers,
numbers, strings, and MXNet's arrays, by name; whatever else the program wants is refused, and no line of
Python that the file names is ever imported or run. An optimizer that the file holds beside the states
(`dump_optimizer`) is read as plain attributes; only its counts of updates are used.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dmod.base import FormatError
from dmod.ndarray.params_file import dump_arrays, parse_arrays

__all__ = ["dump_pickle", "looks_pickled", "parse_pickle"]

_MAX_LEAVES = 8
"""Most arrays in the state of one parameter; no optimizer of MXNet's has more than four."""
_ARRAYS = ("mxnet.ndarray.ndarray NDArray", "mxnet.ndarray NDArray")
_BYTEARRAYS = ("builtins bytearray", "__builtin__ bytearray")
_ENCODE = "_codecs encode"
_INERT = ("mxnet.optimizer", "mxnet.lr_scheduler")
_MARK = object()
_HEAD, _TAIL = struct.pack("<QQQ", 0x112, 0, 1), struct.pack("<Q", 0)


class _Name(str):
    """A global that the program has named: a string, nothing more."""


class _Object:
    """What the program builds: a class's name and attributes, without behaviour."""

    def __init__(self, name: str):
        self.name = name
        self.attributes: dict[Any, Any] = {}


class _Machine:
    """Runs the program of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """The object that the program makes."""
        for opcode, arg, position in pickletools.genops(data):
            try:
                if opcode.name == "STOP":
                    return self.stack.pop()
                if opcode.name in _LITERALS:
                    self.stack.append(arg)
                else:
                    _ACTIONS[opcode.name](self, arg)
            except KeyError:
                raise _Refused(f"offset {position}: the operation {opcode.name} is not admitted") from None
            except (IndexError, TypeError, ValueError) as error:
                raise _Refused(f"offset {position}: {opcode.name}: {error}") from None
        raise _Refused("the pickle does not end")

    def to_mark(self) -> list[Any]:
        """The values above the topmost mark, taken off with it."""
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def take(self, count: int) -> list[Any]:
        """The topmost `count` values, taken off."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def put(self, key: Any) -> None:
        """Keep the topmost value."""
        self.memo[int(key)] = self.stack[-1]

    def get(self, key: Any) -> None:
        """Fetch a value that was kept."""
        if int(key) not in self.memo:
            raise ValueError(f"nothing is kept under {key}")
        self.stack.append(self.memo[int(key)])

    def extend(self, values: list[Any]) -> None:
        """Add values to the list below them."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("not a list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        """Add keys and values to the dict below them."""
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError("not a dict")
        target.update(zip(values[::2], values[1::2], strict=True))

    def make_dict(self, values: list[Any]) -> None:
        """A dict of keys and values."""
        self.stack.append({})
        self.set_items(values)

    def name(self, module: Any, name: Any) -> None:
        """A global: one of those that are known, or a class of optimizers or schedules."""
        full = f"{module} {name}"
        if full not in (*_ARRAYS, *_BYTEARRAYS, _ENCODE) and not str(module).startswith(_INERT):
            raise ValueError(f"{module}.{name} is neither an array nor a number")
        self.stack.append(_Name(full))

    def call(self) -> None:
        """The calls that are known: making an array, bytes, or an object without behaviour."""
        function, args = self.take(2)
        if not isinstance(function, _Name) or not isinstance(args, tuple):
            raise TypeError("a call of something that is no name")
        if function in _ARRAYS:
            self.stack.append(_Object(function))
        elif function in _BYTEARRAYS or function == _ENCODE:
            self.stack.append(_as_bytes(*args))
        else:
            raise ValueError(f"a call of {function}")

    def new(self) -> None:
        """An object of a class, without calling its constructor."""
        klass, _ = self.take(2)
        if not isinstance(klass, _Name) or not (klass in _ARRAYS or klass.startswith(_INERT)):
            raise ValueError(f"an object of {klass!r}")
        self.stack.append(_Object(klass))

    def build(self) -> None:
        """Give an object attributes."""
        target, attributes = self.take(2)
        if not isinstance(target, _Object) or not isinstance(attributes, dict):
            raise TypeError("attributes of something that has none")
        target.attributes.update(attributes)
        self.stack.append(target)


class _Refused(ValueError):
    """The program does something that is not admitted."""


def _as_bytes(value: Any, encoding: Any = "latin-1") -> bytes:
    # A number would mean that many zeros, however many.
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if not isinstance(value, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("bytes of something else")
    return value.encode("latin-1")


_LITERALS = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "MARK": lambda m, _: m.stack.append(_MARK),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.to_mark(),
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "DICT": lambda m, _: m.make_dict(m.to_mark()),
    "LIST": lambda m, _: m.stack.append(m.to_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.to_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.take(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.take(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.take(3))),
    "APPEND": lambda m, _: m.extend(m.take(1)),
    "APPENDS": lambda m, _: m.extend(m.to_mark()),
    "SETITEM": lambda m, _: m.set_items(m.take(2)),
    "SETITEMS": lambda m, _: m.set_items(m.to_mark()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": lambda m, arg: m.name(*arg.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.take(2)),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.new(),
    "BUILD": lambda m, _: m.build(),
}


def looks_pickled(data: bytes) -> bool:
    """Whether these are the first bytes of a pickle."""
    return data[:1] == b"\x80" or data[:2] in (b"(d", b"(t", b"}q", b"(l")


def parse_pickle(data: bytes, path: str) -> dict[int | str, tuple[int, list[np.ndarray]]]:
    """Counts of updates and arrays by key, from what MXNet's ``Updater.get_states`` wrote.

    A float32 copy of float16 weights comes last, whatever its place was. Where an optimizer with a single
    state writes (copy, state), AdaGrad and Signum, this is known only if the file holds the optimizer.

    Raises
    ------
    FormatError
        The pickle is truncated, holds something else, or wants anything but arrays and numbers.
    """
    try:
        states = _Machine().run(data)
        optimizer = None
        if isinstance(states, tuple) and len(states) == 2 and isinstance(states[1], _Object):
            states, optimizer = states
        if not isinstance(states, dict):
            raise _Refused("not a dict of optimizer states")
        counts = optimizer.attributes.get("_index_update_count") if optimizer is not None else None
        copy_first = optimizer is not None and optimizer.name.split()[-1] in ("AdaGrad", "Signum", "Test")
        found: dict[int | str, tuple[int, list[np.ndarray]]] = {}
        for key, state in states.items():
            if isinstance(key, bool) or not isinstance(key, int | str):
                raise _Refused(f"a state of {key!r}")
            count = counts.get(key, 0) if isinstance(counts, dict) else 0
            if not isinstance(count, int) or count < 0:
                raise _Refused(f"{count!r} updates of {key!r}")
            found[key] = (count, _arrays(state, copy_first, path))
    except FormatError:
        raise
    except (ValueError, RecursionError, MemoryError, OverflowError, struct.error) as error:
        raise FormatError(
            f"{path}: a Python pickle that is not read, for it is no plain file of MXNet's optimizer "
            f"states: {error}"
        ) from None
    return found


def _arrays(state: Any, copy_first: bool, path: str) -> list[np.ndarray]:
    leaves = [_array(leaf, path) for leaf in _leaves(state)]
    pair = isinstance(state, list | tuple) and len(state) == 2 and isinstance(state[0], _Object)
    if pair and (not isinstance(state[1], _Object) or copy_first):
        return [*leaves[1:], leaves[0]]
    return leaves


def _leaves(state: Any, depth: int = 0) -> list[_Object]:
    """The arrays within a state, in order."""
    if state is None:
        return []
    if isinstance(state, _Object):
        return [state]
    if not isinstance(state, list | tuple) or depth > 2:
        raise _Refused(f"a state that is {type(state).__name__}")
    leaves: list[_Object] = []
    for part in state[: _MAX_LEAVES + 1]:
        leaves += _leaves(part, depth + 1)
        if len(leaves) > _MAX_LEAVES:
            raise _Refused(f"more than {_MAX_LEAVES} arrays in a state")
    return leaves


def _array(leaf: _Object, path: str) -> np.ndarray:
    handle = leaf.attributes.get("handle")
    if leaf.name not in _ARRAYS or not isinstance(handle, bytes | bytearray):
        raise _Refused(f"{leaf.name} where an array is expected")
    array = parse_arrays(_HEAD + bytes(handle) + _TAIL, path)[0][0]
    if not isinstance(array, np.ndarray):
        raise _Refused("a sparse array")
    return array


def dump_pickle(states: dict[int | str, Any]) -> bytes:
    """A pickle, in protocol 3, that MXNet's ``Updater.set_states`` reads.

    Parameters
    ----------
    states : dict
        By index or name: None, a numpy array, or nested tuples of such.
    """
    parts: list[bytes] = [b"\x80\x03}("]
    for key, state in states.items():
        parts.extend(_packed(key))
        parts.extend(_packed(state))
    return b"".join([*parts, b"u."])


def _packed(value: Any) -> Iterator[bytes]:
    """The program that makes `value`."""
    if value is None:
        yield b"N"
    elif isinstance(value, tuple):
        yield b"("
        for part in value:
            yield from _packed(part)
        yield b"t"
    elif isinstance(value, str):
        encoded = value.encode()
        yield b"X" + struct.pack("<I", len(encoded)) + encoded
    elif isinstance(value, int):
        yield b"I%d\n" % value
    else:
        record = b"".join(bytes(chunk) for chunk in dump_arrays([value], []))[len(_HEAD) : -len(_TAIL)]
        yield b"cmxnet.ndarray.ndarray\nNDArray\nN\x85R}"
        yield b"X\x06\x00\x00\x00handlecbuiltins\nbytearray\n"
        yield (
            b"B" + struct.pack("<I", len(record)) if len(record) < 1 << 32
            else b"\x8e" + struct.pack("<Q", len(record))
        )  # fmt: skip
        yield record + b"\x85Rsb"
