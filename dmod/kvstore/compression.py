"""Gradients in fewer bytes on their way to the servers: '2bit', 'bf16' and 'fp16'.

'2bit' is MXNet's: an element becomes ``threshold``, ``-threshold`` or 0, whichever its value and what
earlier rounds have left of it allow, and the rest is kept for the next round (Seide et al., *1-bit
stochastic gradient descent*, 2014; Strom, *Scalable distributed DNN training using commodity GPU cloud
computing*, 2015). 'bf16' and 'fp16' round to 16 bits, to the nearest, and keep nothing.

Only float32 gradients are compressed, and only on the way to a server: what comes back is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.device.kernels import compiled_kernels
from dmod.registry import nearest

__all__ = ["Compression", "Compressor", "decode_payload"]

_HEADER_NBYTES = 4
"""A '2bit' payload begins with its threshold, a float32."""
_KINDS = {"2bit": "2bit", "bf16": "bfloat16", "bfloat16": "bfloat16", "fp16": "half", "float16": "half"}


@dataclass(frozen=True)
class Compression:
    """A kind of compression, and its parameters.

    Attributes
    ----------
    kind : str
        As the user has named it.
    threshold : float
        Of '2bit'.
    """

    kind: str
    threshold: float = 0.5

    @property
    def encoding(self) -> str:
        """Its name in messages: one of `ENCODED`."""
        return _KINDS[self.kind]

    @classmethod
    def parse(cls, params: Any) -> Compression:
        """Read ``{'type': '2bit', 'threshold': 0.5}``.

        Raises
        ------
        InvalidArgument
            There is no such type, or a parameter has no sense.

        Examples
        --------
        >>> Compression.parse({'type': '2bit'})
        Compression(kind='2bit', threshold=0.5)
        """
        what = f"set_gradient_compression({params!r})"
        if not isinstance(params, dict) or not isinstance(params.get("type"), str):
            raise InvalidArgument(f"{what}: expected a dict with a 'type', such as {{'type': '2bit'}}")
        kind = params["type"]
        if kind not in _KINDS:
            hint = nearest(kind, tuple(_KINDS)) or "; known: '2bit', 'bf16', 'fp16'"
            raise InvalidArgument(f"{what}: unknown type {kind!r}{hint}")
        for name in params:
            if name not in ("type", "threshold") or (name == "threshold" and kind != "2bit"):
                known = "'type' and 'threshold'" if kind == "2bit" else "only 'type'"
                raise InvalidArgument(f"{what}: unknown parameter {name!r}; {kind!r} has {known}")
        try:
            threshold = float(np.float32(params.get("threshold", 0.5)))
        except (TypeError, ValueError):
            threshold = -1.0
        if not 0 < threshold < np.inf:
            raise InvalidArgument(f"{what}: expected a threshold above 0")
        return cls(kind, threshold)

    def check(self, what: str, key: Any, dtype: Any) -> None:
        """Raise `InvalidArgument` for a key that cannot be compressed."""
        if np.dtype(dtype) != np.float32:
            raise InvalidArgument(
                f"{what}: gradient compression {self.kind!r} takes float32, the key {key!r} is "
                f"{np.dtype(dtype).name}: keep it in a store without compression"
            )


class Compressor:
    """Compresses the contributions of one worker or device, and keeps what '2bit' has left out of them."""

    def __init__(self, compression: Compression):
        self.compression = compression
        self._residuals: dict[Hashable, np.ndarray] = {}
        self._before: dict[Hashable, np.ndarray] = {}
        self._encoded: set[Hashable] = set()  # since `begin`

    @property
    def encoding(self) -> str:
        """What its payloads are called in messages."""
        return self.compression.encoding

    def begin(self) -> None:
        """What is encoded from here on, `take_back` undoes."""
        self._encoded.clear()

    def take_back(self) -> None:
        """Have left over what was before `begin`: what was encoded since then has been dropped.

        Of several arrays that were encoded under one name, the last one is taken back.
        """
        for name in self._encoded:
            np.copyto(self._residuals[name], self._before[name])
        self._encoded.clear()

    def get_residuals(self) -> dict[Hashable, np.ndarray]:
        """What '2bit' has left over, by the names that `encode` was given; copies."""
        return {name: residual.copy() for name, residual in self._residuals.items()}

    def set_residuals(self, residuals: Mapping[Hashable, np.ndarray]) -> None:
        """Go on from what `get_residuals` gave; an array of another size than is encoded next is dropped."""
        self._residuals = {name: np.array(r, np.float32).reshape(-1) for name, r in residuals.items()}
        self._before.clear()
        self._encoded.clear()

    def encode(self, name: Hashable, array: np.ndarray) -> np.ndarray:
        """The payload for a 1-D float32 `array`; `name` is what the next round's array goes by.

        Returns
        -------
        ndarray of uint8, uint16 or float16
        """
        if self.encoding == "half":
            with np.errstate(over="ignore"):  # infinite, as it is in float16
                return array.astype(np.float16)
        if self.encoding == "bfloat16":
            return _to_bfloat16(array)
        residual = self._residuals.get(name)
        if residual is None or residual.size != array.size:
            residual = self._residuals[name] = np.zeros(array.size, np.float32)
            self._before[name] = np.zeros(array.size, np.float32)
        elif name in self._before:
            np.copyto(self._before[name], residual)
        else:
            self._before[name] = residual.copy()
        self._encoded.add(name)
        payload: np.ndarray = np.empty(_HEADER_NBYTES + -(-array.size // 4), np.uint8)
        payload[:_HEADER_NBYTES].view(np.float32)[0] = self.compression.threshold
        kernels = _kernels()
        quantize = _quantize if kernels is None else kernels.quantize
        quantize(array, residual, np.float32(self.compression.threshold), payload[_HEADER_NBYTES:])
        return payload

    def rounded(self, name: Hashable, array: np.ndarray) -> np.ndarray:
        """What a receiver of `encode`'s payload sees."""
        return decode_payload(self.encode(name, array), self.encoding, array.size)


def decode_payload(payload: Any, encoding: str, size: int) -> np.ndarray:
    """The float32 array of `size` elements that a payload stands for.

    Raises
    ------
    ValueError
        The payload has another length, or its threshold has no sense.
    """
    raw: np.ndarray = np.frombuffer(payload, np.uint8)
    expected = _HEADER_NBYTES + -(-size // 4) if encoding == "2bit" else 2 * size
    if raw.size != expected:
        raise ValueError(f"{raw.size} bytes of {encoding} for {size} elements, expected {expected}")
    if encoding == "half":
        return raw.view(np.float16).astype(np.float32)
    if encoding == "bfloat16":
        wide: np.ndarray = np.left_shift(raw.view(np.uint16), np.uint32(16), dtype=np.uint32)
        return wide.view(np.float32)
    threshold = raw[:_HEADER_NBYTES].view(np.float32)[0]
    if not 0 < threshold < np.inf:
        raise ValueError(f"threshold {threshold}, expected one above 0")
    levels = np.array([0, threshold, -threshold, 0], np.float32)
    out: np.ndarray = np.empty(size, np.float32)
    kernels = _kernels()
    (_dequantize if kernels is None else kernels.dequantize)(raw[_HEADER_NBYTES:], levels, out)
    return out


def _to_bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper half of each float32, rounded to the nearest, ties to even."""
    bits = array.view(np.uint32)
    rounded = bits + ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    halves: np.ndarray = (rounded >> np.uint32(16)).astype(np.uint16)
    unordered = np.isnan(array)
    if unordered.any():  # rounding could turn one into infinity
        halves[unordered] = 0x7FC0
    return halves


def _quantize(grad: np.ndarray, residual: np.ndarray, threshold: np.float32, packed: np.ndarray) -> None:
    """Like `compression_kernels.quantize`, with the same bits."""
    np.add(residual, grad, out=residual)
    above, below = residual >= threshold, residual <= -threshold
    residual[above] -= threshold
    residual[below] += threshold
    codes: np.ndarray = np.zeros(4 * packed.size, np.uint8)
    codes[: grad.size] = above + 2 * below.astype(np.uint8)
    fours = codes.reshape(-1, 4) << np.arange(0, 8, 2, dtype=np.uint8)
    np.bitwise_or.reduce(fours, axis=1, out=packed)


def _dequantize(packed: np.ndarray, levels: np.ndarray, out: np.ndarray) -> None:
    """Like `compression_kernels.dequantize`."""
    codes = (packed[:, None] >> np.arange(0, 8, 2, dtype=np.uint8)) & np.uint8(3)
    out[:] = levels[codes.reshape(-1)[: out.size]]


@functools.cache
def _kernels() -> Any:
    """The module of compiled kernels; None where kernels are not compiled."""
    if compiled_kernels() is None:
        return None
    from dmod.kvstore import compression_kernels

    return compression_kernels
