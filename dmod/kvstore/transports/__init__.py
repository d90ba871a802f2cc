"""What carries the messages of the parameter server: `inproc` for tests, `zeromq` for tcp and ipc."""

from __future__ import annotations
