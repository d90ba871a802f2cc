"""The product's logger, and making it heard.

MXNet's users complained that nothing is printed unless they set logging up; so a training run shows its
progress by itself, and stays out of the way of a program that has set logging up.
"""

from __future__ import annotations

import logging
import sys

__all__ = ["logger", "show_progress"]

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
