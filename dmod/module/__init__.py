"""``mx.mod``: networks that can be bound, trained, evaluated and saved."""

from __future__ import annotations

from dmod.module.base_module import BaseModule
from dmod.module.module import Module

__all__ = ["BaseModule", "Module"]
