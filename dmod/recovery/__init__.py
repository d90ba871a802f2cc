"""Checkpoints that lose nothing: taken of all workers at one moment, and gone on from to the same bits."""

from __future__ import annotations

from dmod.recovery.manager import CheckpointManager

__all__ = ["CheckpointManager"]
