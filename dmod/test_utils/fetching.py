"""Fetching files."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from dmod.base import InvalidArgument, MXNetError
from dmod.log import logger

__all__ = ["download"]

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
