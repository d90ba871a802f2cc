"""The state of a learning rate schedule: those of dmod have none, those of its users may count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["schedule_state", "set_schedule_state"]


def schedule_state(schedule: Any) -> dict[str, Any]:
    """What a schedule of the user's counts: its `state_dict`, or else its attributes that are plain values.

    Those of `dmod.lr_scheduler` are functions of the number of updates, and have none: it is empty.
    """
    if schedule is None or "portable" in vars(type(schedule)):
        return {}
    if hasattr(schedule, "state_dict"):
        return dict(schedule.state_dict())
    plain = (bool, int, float, str)
    return {name: value for name, value in getattr(schedule, "__dict__", {}).items() if type(value) in plain}


def set_schedule_state(schedule: Any, state: Mapping[str, Any]) -> None:
    """Put back what `schedule_state` gave."""
    if not state or schedule is None:
        return
    if hasattr(schedule, "load_state_dict"):
        schedule.load_state_dict(state)
        return
    for name, value in state.items():
        setattr(schedule, name, value)
