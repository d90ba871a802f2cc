"""Checking the values that parameters are given, before any is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dmod.base import InvalidArgument
from dmod.ndarray import NDArray
from dmod.registry import nearest

__all__ = ["check_given", "check_known", "check_shapes"]


def check_given(
    what: str,
    given: Any,
    have: Mapping[str, NDArray],
    allow_missing: bool,
    allow_extra: bool,
    logger: Any,
) -> None:
    """Check values for the parameters `have`.

    Parameters
    ----------
    what : str
        'arg_params' or 'aux_params'.
    given : dict of str to NDArray, or None
    have : dict of str to NDArray
    allow_missing, allow_extra : bool
        As in `BaseModule.init_params`.
    logger : logging.Logger
        Is warned of values that no parameter is there for.

    Raises
    ------
    InvalidArgument
        A value is missing and may not be, or has another shape.
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise InvalidArgument(f"{what}: expected a dict of names to NDArray, got {type(given).__name__}")
    extra = [name for name in given if name not in have]
    missing = [name for name in have if name not in given]
    if missing and not allow_missing:
        hint = f"; it has {extra[0]!r}, which the network does not" if extra else ""
        raise InvalidArgument(
            f"{what} lacks {', '.join(map(repr, missing))}{hint}; or use allow_missing=True"
        )
    if extra and not allow_extra:
        logger.warning(
            "%s: %s not in the network, ignored%s (allow_extra=True says that this is meant)",
            what,
            ", ".join(map(repr, extra)),
            nearest(extra[0], have),
        )
    check_shapes(what, given, have)


def check_shapes(what: str, given: Mapping[str, Any], have: Mapping[str, NDArray]) -> None:
    """Refuse values that are no arrays, or have other shapes than the parameters of their names."""
    for name, value in given.items():
        if not isinstance(value, NDArray):
            raise InvalidArgument(f"{what}[{name!r}]: expected an NDArray, got {type(value).__name__}")
        if name in have and value.shape != have[name].shape:
            raise InvalidArgument(
                f"{what}[{name!r}]: shape {value.shape}, the network needs {have[name].shape}"
            )


def check_known(what: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse a checkpoint that lacks one of the parameters `names`."""
    missing = [name for name in names if name not in given]
    if missing:
        raise InvalidArgument(f"{what}: the checkpoint lacks {', '.join(map(repr, missing))}")
