"""Small things that MXNet scripts touch: ``mx.engine``, ``mx.log``, the types in ``mx.base``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument


def test_a_bulk_size_is_remembered_and_restored() -> None:
    with mx.engine.bulk(10):
        assert mx.engine.set_bulk_size(20) == 10
    assert mx.engine.set_bulk_size(0) == 0
    with pytest.raises(InvalidArgument, match="at least 0"):
        mx.engine.set_bulk_size(-1)


def test_a_logger_writes_level_time_and_place_once(tmp_path: Path, capfd: Any) -> None:
    logger = mx.log.get_logger("dmod.test_extras", level=mx.log.INFO)
    handlers = list(logger.handlers)
    try:
        logger.info("hello")
        logger.debug("unseen")
        assert mx.log.get_logger("dmod.test_extras").handlers == handlers and logger.level == logging.WARNING
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("I") and line.endswith("] hello") and "test_extras.py" in line
    finally:
        for handler in handlers:
            logger.removeHandler(handler)


def test_a_logger_writes_to_a_file(tmp_path: Path) -> None:
    logger = mx.log.getLogger("dmod.test_extras.file", str(tmp_path / "a.log"), "w", mx.log.DEBUG)
    try:
        logger.debug("hello")
        assert (tmp_path / "a.log").read_text().endswith("] hello\n")
    finally:
        for handler in list(logger.handlers):
            handler.close()
            logger.removeHandler(handler)


def test_the_types_that_scripts_ask_for() -> None:
    assert isinstance("x", mx.base.string_types) and not isinstance(b"x", mx.base.string_types)
    assert isinstance(np.float32(1), mx.base.numeric_types) and isinstance(2, mx.base.numeric_types)
    assert isinstance(np.int64(1), mx.base.integer_types) and not isinstance(1.0, mx.base.integer_types)
    assert mx.base.py_str(b"abc") == "abc" and mx.base.mx_real_t is np.float32
