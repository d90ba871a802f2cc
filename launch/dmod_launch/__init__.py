"""Starts and supervises the processes of a dmod job: the command ``dmod-launch``."""

from __future__ import annotations
