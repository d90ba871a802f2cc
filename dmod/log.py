"""The product's logger, and making it heard.

MXNet's users complained that nothing is printed unless they set logging up; so a training run shows its
progress by itself, and stays out of the way of a program that has set logging up.
"""

from __future__ import annotations

import logging
import sys

__all__ = [
    "CRITICAL",
    "DEBUG",
    "ERROR",
    "INFO",
    "NOTSET",
    "WARNING",
    "getLogger",
    "get_logger",
    "logger",
    "show_progress",
]

CRITICAL, ERROR, WARNING = logging.CRITICAL, logging.ERROR, logging.WARNING
INFO, DEBUG, NOTSET = logging.INFO, logging.DEBUG, logging.NOTSET

logger = logging.getLogger("dmod")


class _StderrHandler(logging.StreamHandler):
    """Writes to whatever ``sys.stderr`` is at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # type: ignore[no-untyped-def]
        return sys.stderr


def show_progress() -> None:
    """Let messages of level INFO reach stderr, unless the program has set logging up by itself."""
    if logging.getLogger().handlers or logger.handlers:
        return
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


class _LetterFormatter(logging.Formatter):
    """Lines such as ``I1121 04:54:56 3634 train.py:fit:6] text``."""

    def __init__(self) -> None:
        super().__init__(
            "%(letter)s%(asctime)s %(process)d %(filename)s:%(funcName)s:%(lineno)d] %(message)s",
            "%m%d %H:%M:%S",
        )

    def format(self, record: logging.LogRecord) -> str:
        record.letter = record.levelname[0]
        return super().format(record)


def get_logger(
    name: str | None = None, filename: str | None = None, filemode: str | None = None, level: int = WARNING
) -> logging.Logger:
    """A logger of Python's that writes level, time, process and place before each message.

    Parameters
    ----------
    name : str, optional
        Default: the root logger.
    filename : str, optional
        Default: stderr.
    filemode : str, optional
        How to open the file; default: 'a'.
    level : int

    Returns
    -------
    logging.Logger
        The same one for the same name; it gets a handler the first time.
    """
    found = logging.getLogger(name)
    if not any(isinstance(handler.formatter, _LetterFormatter) for handler in found.handlers):
        handler: logging.Handler = (
            logging.FileHandler(filename, filemode or "a") if filename else _StderrHandler()
        )
        handler.setFormatter(_LetterFormatter())
        found.addHandler(handler)
    found.setLevel(level)
    return found


def getLogger(
    name: str | None = None, filename: str | None = None, filemode: str | None = None, level: int = WARNING
) -> logging.Logger:
    """The old name of `get_logger`."""
    return get_logger(name, filename, filemode, level)
