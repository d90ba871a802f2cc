"""Tools for tests and tutorials: fetching files, comparing arrays."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, MXNetError
from dmod.log import logger
from dmod.ndarray import NDArray

__all__ = ["almost_equal", "assert_almost_equal", "download", "same"]

_TIMEOUT_S = 30


def download(
    url: str,
    fname: str | None = None,
    dirname: str | None = None,
    overwrite: bool = False,
    retries: int = 5,
) -> str:
    """Fetch a file.

    Parameters
    ----------
    url : str
        ``http://``, ``https://``, ``file://``, or the path of a local file.
    fname : str, optional
        Where to put it; default: the last part of the URL, in `dirname`. A local file without `fname` and
        `dirname` stays where it is.
    dirname : str, optional
        The directory; made if it is missing.
    overwrite : bool
        Fetch it again even if it is there.
    retries : int
        How often to try in all.

    Returns
    -------
    str
        The path of the file.

    Raises
    ------
    MXNetError
        It cannot be fetched; the message says how to go on without a network.
    """
    parts = urllib.parse.urlsplit(url)
    remote = parts.scheme in ("http", "https", "ftp")
    source = urllib.request.url2pathname(parts.path) if parts.scheme == "file" else url
    if not remote and fname is None and dirname is None:
        return _existing(source)
    target = fname or os.path.basename(parts.path if remote else source)
    if not target:
        raise InvalidArgument(f"download({url!r}): the URL ends in no file name; pass fname")
    if dirname is not None:
        target = os.path.join(dirname, target)
    if os.path.exists(target) and not overwrite:
        return target
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    if remote:
        _fetch(url, target, max(1, retries))
    elif not (os.path.exists(target) and os.path.samefile(_existing(source), target)):
        shutil.copyfile(_existing(source), target)
    return target


def _existing(path: str) -> str:
    if not os.path.isfile(path):
        raise MXNetError(f"download({path!r}): no such file, and not an http or https address")
    return path


def _fetch(url: str, target: str, retries: int) -> None:
    """Fetch to a temporary name, then rename: an interruption leaves no half of a file."""
    directory, name = os.path.split(os.path.abspath(target))
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    os.close(handle)
    try:
        for attempt in range(1, retries + 1):
            try:
                with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, open(temporary, "wb") as file:
                    shutil.copyfileobj(answer, file)
                break
            except (OSError, urllib.error.URLError) as error:
                reason = getattr(error, "reason", error)
                logger.info("download(%r): attempt %d of %d: %s", url, attempt, retries, reason)
                if attempt == retries or (isinstance(error, urllib.error.HTTPError) and error.code < 500):
                    raise MXNetError(
                        f"download({url!r}): {reason}. Without a network, fetch the file elsewhere, put it "
                        f"at {target!r}, or pass its local path instead of the address"
                    ) from None
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _numpy(x: Any) -> np.ndarray:
    return x.asnumpy() if isinstance(x, NDArray) else np.asarray(x)


def same(a: Any, b: Any) -> bool:
    """Whether two arrays are equal in every element."""
    return np.array_equal(_numpy(a), _numpy(b))


def almost_equal(
    a: Any, b: Any, rtol: float | None = None, atol: float | None = None, equal_nan: bool = False
) -> bool:
    """Whether two arrays are equal within ``atol + rtol * abs(b)``; see `assert_almost_equal`."""
    left, right = _numpy(a), _numpy(b)
    rtol, atol = _tolerances(left, right, rtol, atol)
    return np.allclose(left, right, rtol, atol, equal_nan)


def assert_almost_equal(
    a: Any,
    b: Any,
    rtol: float | None = None,
    atol: float | None = None,
    names: tuple[str, str] = ("a", "b"),
    equal_nan: bool = False,
) -> None:
    """Raise AssertionError unless two arrays are equal within ``atol + rtol * abs(b)``.

    Parameters
    ----------
    a, b : array-like or NDArray
    rtol, atol : float, optional
        Default: by the narrower dtype of the two.
    names : pair of str
        What the message calls them.
    equal_nan : bool
        Count NaNs as equal.
    """
    left, right = _numpy(a), _numpy(b)
    rtol, atol = _tolerances(left, right, rtol, atol)
    np.testing.assert_allclose(
        left, right, rtol, atol, equal_nan, err_msg=f"{names[0]} and {names[1]} differ"
    )


def _tolerances(a: np.ndarray, b: np.ndarray, rtol: float | None, atol: float | None) -> tuple[float, float]:
    by_size = {2: (1e-2, 1e-1), 4: (1e-4, 1e-3), 8: (1e-5, 1e-20)}
    sizes = [x.dtype.itemsize for x in (a, b) if x.dtype.kind == "f"]
    default = by_size.get(min(sizes), by_size[8]) if sizes else (0.0, 0.0)
    return default[0] if rtol is None else rtol, default[1] if atol is None else atol
