"""One node's part in the membership of a job: join, signs of life, leave; used by workers and servers.

It knows nothing of keys. Whatever it sends is sent again until it is answered, so a message may be
lost or repeated; when the scheduler stays silent for `timeout_s` the node gives the job up.
"""

from __future__ import annotations

import enum

from dmod.base import ClusterError, DeadlineError, JoinRefusedError, MXNetError, NotReadyError, PeerLostError
from dmod.kvstore.actions import SCHEDULER, Action, Exit, Joined, Lost, Send
from dmod.kvstore.messages import (
    Ack,
    Admit,
    Heartbeat,
    HeartbeatReply,
    Join,
    Leave,
    Message,
    PeerLost,
    Refuse,
    Stop,
    View,
)

__all__ = ["LEAVE_REQUEST", "MemberState", "Phase", "lost_text"]

LEAVE_REQUEST = 0
"""The number of the Leave that goes to the scheduler; operations count from 1."""


class Phase(enum.Enum):
    """Where a node stands."""

    NEW = "new"
    JOINING = "joining"
    MEMBER = "member"
    LEAVING = "leaving"
    LEFT = "left"
    LOST = "lost"


_IGNORE = "_ignore"
_TRANSITIONS: dict[Phase, dict[type[Message], str]] = {
    # A message that is not listed for a phase is a violation: it is counted, and changes nothing.
    Phase.NEW: {},
    Phase.JOINING: {
        Admit: "_admitted",
        View: "_joined",
        Refuse: "_refused",
        PeerLost: "_peer_lost",
        HeartbeatReply: _IGNORE,
    },
    Phase.MEMBER: {
        Admit: _IGNORE,
        View: _IGNORE,
        HeartbeatReply: _IGNORE,
        PeerLost: "_peer_lost",
        Refuse: "_refused",
        Stop: "_stopped",
    },
    Phase.LEAVING: {
        Admit: _IGNORE,
        View: _IGNORE,
        HeartbeatReply: _IGNORE,
        Stop: _IGNORE,
        Refuse: "_left",
        PeerLost: "_left",
        Ack: "_left",
    },
    Phase.LEFT: dict.fromkeys((Admit, View, HeartbeatReply, Stop, Refuse, PeerLost, Ack), _IGNORE),
    Phase.LOST: dict.fromkeys((Admit, View, HeartbeatReply, Stop, Refuse, PeerLost, Ack), _IGNORE),
}


def lost_text(lost: PeerLost) -> str:
    """What happened to whom, as one sentence."""
    if not lost.pid:
        return f"{lost.role} {lost.rank} is lost: {lost.why}"
    where = f" on {lost.host}" if lost.host else ""
    silent = f", silent for {lost.silent_s:.1f} s" if lost.silent_s >= 0.05 else ""
    return f"{lost.role} {lost.rank} (pid {lost.pid}{where}{silent}) is lost: {lost.why}"


class MemberState:
    """A node as its scheduler sees it.

    Parameters
    ----------
    join : Join
        Who this node is.
    timeout_s : float
        After so many seconds without a word from the scheduler it counts as lost.
    heartbeat_s : float
        Seconds between two signs of life.
    join_timeout_s : float
        How long to wait for the others to join.
    scheduler : str
        The scheduler's address, for error messages.

    Attributes
    ----------
    phase : Phase
    view : View or None
        Who takes part, once that is known.
    error : MXNetError or None
        Why the job is lost.
    lost : PeerLost or None
        Whose loss that was, if it was one's.
    violations : int
        Messages that the protocol does not allow where they came.
    """

    def __init__(
        self,
        join: Join,
        *,
        timeout_s: float = 10.0,
        heartbeat_s: float = 1.0,
        join_timeout_s: float = 60.0,
        scheduler: str = "its address",
    ):
        self.join = join
        self.timeout_s, self.heartbeat_s, self.join_timeout_s = timeout_s, heartbeat_s, join_timeout_s
        self.phase = Phase.NEW
        self.view: View | None = None
        self.error: MXNetError | None = None
        self.lost: PeerLost | None = None
        self.violations = 0
        self._scheduler = scheduler
        self._missing: tuple[str, ...] = ()
        self._heard = 0.0  # when the scheduler last said something
        self._next_beat = 0.0
        self._deadline = 0.0  # of joining, or of leaving
        self._leave = Leave(LEAVE_REQUEST, "")

    @property
    def rank(self) -> int:
        """This node's number among those of its role.

        Raises
        ------
        NotReadyError
            The node has not joined yet.
        """
        if self.view is None:
            raise NotReadyError("rank: this process has not joined its job yet")
        return self.view.rank

    def start(self, now: float) -> list[Action]:
        """Ask to join."""
        if self.phase is not Phase.NEW:
            raise NotReadyError(f"start: this process has started already, and is {self.phase.value}")
        self.phase, self._heard, self._deadline = Phase.JOINING, now, now + self.join_timeout_s
        self._next_beat = now + self.heartbeat_s
        return [Send(SCHEDULER, self.join)]

    def leave(self, error: str, now: float) -> list[Action]:
        """Leave the job; `error` is '' if all is done. Exit follows, at the latest after `timeout_s`."""
        if self.phase in (Phase.LEAVING, Phase.LEFT):
            return []
        self._leave = Leave(LEAVE_REQUEST, error[:4096])
        if self.phase in (Phase.NEW, Phase.LOST):
            farewell: list[Action] = [Send(SCHEDULER, self._leave)] if self.phase is Phase.LOST else []
            self.phase = Phase.LEFT
            return [*farewell, Exit(self.error)]
        self.phase, self._deadline = Phase.LEAVING, now + self.timeout_s
        self._next_beat = now + self.heartbeat_s
        return [Send(SCHEDULER, self._leave)]

    def on_message(self, message: Message, now: float) -> list[Action]:
        """The scheduler has sent `message`."""
        handler = _TRANSITIONS[self.phase].get(type(message))
        if handler is None or (isinstance(message, Ack) and message.request != LEAVE_REQUEST):
            self.violations += 1
            return []
        self._heard = now
        actions: list[Action] = getattr(self, handler)(message, now)
        return actions

    def heard(self, now: float) -> None:
        """The scheduler has sent something that is not about membership."""
        self._heard = max(self._heard, now)

    def on_timer(self, now: float) -> list[Action]:
        """Some time has passed; call it at `next_timer` or at any time, after reading what has arrived."""
        if self.phase is Phase.LEAVING and now >= self._deadline:
            return self._left(None, now)
        if self.phase is Phase.JOINING and now >= self._deadline:
            return self._lose(DeadlineError(self._joining_text()))
        if self.phase is Phase.MEMBER and now >= self._heard + self.timeout_s:
            silent_s = now - self._heard
            return self._lose(
                PeerLostError(f"the scheduler at {self._scheduler} is lost: silent for {silent_s:.1f} s")
            )
        if self.next_timer() is None or now < self._next_beat:
            return []
        self._next_beat = now + self.heartbeat_s
        return [Send(SCHEDULER, self._sign_of_life())]

    def next_timer(self) -> float | None:
        """When `on_timer` should be called next; None: not before another event."""
        if self.phase is Phase.MEMBER:  # asked for before every wait
            silent = self._heard + self.timeout_s
            return silent if silent < self._next_beat else self._next_beat
        if self.phase in (Phase.JOINING, Phase.LEAVING):
            return min(self._next_beat, self._deadline)
        return None

    def check_invariants(self) -> None:
        """Raise AssertionError where this state contradicts itself."""
        assert (self.error is None) or self.phase in (Phase.LOST, Phase.LEFT)
        assert self.phase is not Phase.MEMBER or self.view is not None
        assert (self.next_timer() is None) == (self.phase in (Phase.NEW, Phase.LEFT, Phase.LOST))

    # -- what the messages do

    def _admitted(self, message: Admit, now: float) -> list[Action]:
        self._missing = message.missing
        return []

    def _joined(self, view: View, now: float) -> list[Action]:
        mine = [m for m in view.members if (m.role, m.rank) == (self.join.role, view.rank)]
        if [m.incarnation for m in mine] != [self.join.incarnation]:
            self.violations += 1
            return []
        self.phase, self.view = Phase.MEMBER, view
        return [Joined(view), Send(SCHEDULER, Heartbeat(self.join.incarnation, view.view))]

    def _refused(self, message: Refuse, now: float) -> list[Action]:
        return self._lose(
            JoinRefusedError(
                f"{self.join.role}: refused by the scheduler at {self._scheduler}: {message.reason}"
            )
        )

    def _peer_lost(self, message: PeerLost, now: float) -> list[Action]:
        self.lost = message
        return self._lose(PeerLostError(lost_text(message)))

    def _stopped(self, message: Stop, now: float) -> list[Action]:
        return self.leave("", now)

    def _left(self, message: Message | None, now: float) -> list[Action]:
        self.phase = Phase.LEFT
        return [Exit(ClusterError(self._leave.error) if self._leave.error else None)]

    def _ignore(self, message: Message, now: float) -> list[Action]:
        return []

    def _lose(self, error: MXNetError) -> list[Action]:
        self.phase, self.error = Phase.LOST, error
        return [Lost(error)]

    def _sign_of_life(self) -> Message:
        if self.phase is Phase.JOINING:
            return self.join
        if self.phase is Phase.LEAVING:
            return self._leave
        return Heartbeat(self.join.incarnation, self.view.view if self.view else 0)

    def _joining_text(self) -> str:
        waited = f"join: after {self.join_timeout_s:g} s "
        if self._missing:
            return waited + "still waiting for " + ", ".join(self._missing)
        return (
            waited + f"nobody has answered at {self._scheduler}; is the scheduler running there, "
            "and do DMLC_PS_ROOT_URI and DMLC_PS_ROOT_PORT name it?"
        )
