"""The scheduler: who takes part, who is alive, barriers, and the end.

It sees no gradients. A job goes through these phases, and never back::

    JOINING   until all workers and servers are there; whoever falls silent is forgotten
    RUNNING   from the view on; a node that falls silent or fails loses the job
    STOPPING  all workers have left: servers are told to leave
    LOST      a node is lost: everyone else is told who and why, whenever they say something
    ENDED

Every message may be lost, repeated or come late: nodes repeat what has not been answered, and a
node that has missed a View, a PeerLost or a Stop gets it with the answer to its next sign of life.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from dmod.base import ClusterError, DeadlineError, MXNetError, PeerLostError
from dmod.kvstore.actions import Action, Exit, Lost, Peer, Send
from dmod.kvstore.admission import Admission, Node
from dmod.kvstore.member_state import LEAVE_REQUEST, lost_text
from dmod.kvstore.messages import (
    Ack,
    Admit,
    Barrier,
    Error,
    Heartbeat,
    HeartbeatReply,
    Join,
    Leave,
    LinkEnded,
    Member,
    Message,
    PeerLost,
    Pending,
    Refuse,
    Stop,
    View,
)
from dmod.kvstore.versions import ForeignJoin, ForeignRefuse

__all__ = ["SchedulerPhase", "SchedulerState"]


class SchedulerPhase(enum.Enum):
    """Where a job stands."""

    JOINING = "joining"
    RUNNING = "running"
    STOPPING = "stopping"
    LOST = "lost"
    ENDED = "ended"


_STOP_S = 0.5
"""How long a scheduler that is told to end stays, to tell those who come late."""
_KNOCK_S = 0.05
"""How often the scheduler looks whether one whom another has lost can still be reached."""


class SchedulerState:
    """The one process that knows who takes part.

    Parameters
    ----------
    job, version : str
        What every Join must agree with.
    num_workers, num_servers : int
    timeout_s : float
        After so many silent seconds a node counts as lost.
    join_timeout_s : float
        How long to wait for all to join.
    allow_mixed : bool
        Admit workers whose fingerprints differ, which gives up equal bits.
    told_of_deaths : bool
        Whether somebody watches the processes, and says at once that one has ended, and how (`on_death`).
        What other processes notice of it is no news then.

    Attributes
    ----------
    phase : SchedulerPhase
    error : MXNetError or None
        Why the job is lost.
    """

    def __init__(
        self,
        job: str,
        version: str,
        num_workers: int,
        num_servers: int,
        *,
        timeout_s: float = 10.0,
        join_timeout_s: float = 60.0,
        allow_mixed: bool = False,
        told_of_deaths: bool = False,
    ):
        self.phase = SchedulerPhase.JOINING
        self.error: MXNetError | None = None
        self.violations = 0
        self._sizes = {"worker": num_workers, "server": num_servers}
        self._admission = Admission(job, version, self._sizes, allow_mixed)
        self._timeout_s, self._join_timeout_s = timeout_s, join_timeout_s
        self._told_of_deaths = told_of_deaths
        self._nodes: dict[Peer, Node] = {}  # in order of arrival
        self._members: tuple[Member, ...] = ()
        self._view = 0
        self._deadline = float("inf")  # of joining, stopping, or being lost
        self._lost: PeerLost | None = None
        self._absent: set[object] = set()  # who will never join a job that was lost before it began
        self._barriers: dict[str, int] = {}  # name -> how often it has been passed
        self._arrived: dict[tuple[str, int], dict[int, tuple[Peer, int]]] = {}  # rank -> peer, request

    # -- events

    def start(self, now: float) -> list[Action]:
        """Begin to wait for the others, some of which may have spoken already."""
        if self.phase is SchedulerPhase.JOINING:
            self._deadline = now + self._join_timeout_s
        return []

    def on_message(self, peer: Peer, message: Message, now: float) -> list[Action]:
        """`peer`, a hashable that the transport names a connection by, has sent `message`."""
        node = self._nodes.get(peer)
        if isinstance(message, Join):
            return self._join(peer, message, now)
        if isinstance(message, ForeignJoin):
            why = self._admission.other_version(f"protocol {message.version}")
            refused = Send(peer, ForeignRefuse(message.version, why))
            return [refused, *self._account_for((message.host, message.pid))]
        if self.phase is SchedulerPhase.ENDED and isinstance(message, Leave):
            return [Send(peer, Ack(message.request))]
        if node is None or type(message) not in _HANDLERS[self.phase]:
            return self._stray(peer, message)
        node.heard = now
        return _HANDLERS[self.phase][type(message)](self, node, message, now)

    def on_unreachable(self, peer: Peer, now: float) -> list[Action]:
        """A message to `peer` could not be sent: the connection to it has ended, for now at least.

        That alone means nothing: a connection over a network may be made again. But if others have lost
        their link to the same process at the same time, then it is dead.
        """
        node = self._nodes.get(peer)
        if node is None or node.left or now > node.doubted_until:
            return []
        why = "all its connections have ended: it has died, or was killed"
        return self._gone(node, why, now - node.heard, now)

    def on_death(self, role: str, rank: int, why: str, now: float) -> list[Action]:
        """Whoever has started a process says that it has ended, and how; no timeout could be as fast."""
        node = next((n for n in self._present(role) if n.rank == rank), None)
        if node is not None and self.phase is not SchedulerPhase.JOINING:
            return [] if node.left else self._gone(node, why, now - node.heard, now)
        if self.phase is not SchedulerPhase.JOINING:
            return self._account_for((role, rank))
        host, pid = ("", 0) if node is None else (node.join.host, node.join.pid)
        if node is not None:
            del self._nodes[node.peer]
        self._absent.add((role, rank))
        lost = PeerLost(role, rank, host, pid, f"{why}, before all had joined"[:8192], 0.0)
        return self._lose(lost, PeerLostError(lost_text(lost)), now)

    def _account_for(self, who: object) -> list[Action]:
        """Someone will not join any more."""
        if self._lost is None or self._members or self.phase is not SchedulerPhase.LOST:
            return []
        self._absent.add(who)
        return self._end_if_alone()

    def on_timer(self, now: float) -> list[Action]:
        """Some time has passed; call it at `next_timer` or at any time, after reading what has arrived."""
        if now >= self._deadline:
            return self._out_of_time(now)
        if self.phase is SchedulerPhase.ENDED:
            return []
        actions: list[Action] = []
        for node in list(self._nodes.values()):
            # Added up as in `next_timer`: a difference may be rounded to less than the timeout.
            if not node.left and now >= node.heard + self._timeout_s:
                actions += self._gone(node, "it has stopped answering", now - node.heard, now)
            elif not node.left and now >= node.knock:
                actions += self._knock(node, now)
        return actions

    def next_timer(self) -> float | None:
        """When `on_timer` should be called next; None: not before another event."""
        if self.phase is SchedulerPhase.ENDED:
            return None
        present = [node for node in self._nodes.values() if not node.left]
        return min([self._deadline, *(min(node.heard + self._timeout_s, node.knock) for node in present)])

    def name_of(self, peer: Peer) -> str:
        """Who is at the other end of a connection, for people."""
        node = self._nodes.get(peer)
        return "one who has not joined" if node is None else node.name

    def stop(self, error: str, now: float) -> list[Action]:
        """End the job from here (interrupted, for instance): everyone is told why."""
        if self.phase in (SchedulerPhase.LOST, SchedulerPhase.ENDED):
            return []
        actions = self._lose(PeerLost("scheduler", 0, "", 0, error[:4096], 0.0), ClusterError(error), now)
        self._deadline = min(self._deadline, now + _STOP_S)  # whoever wants it to end does not wait for long
        return actions

    # -- joining

    def _join(self, peer: Peer, message: Join, now: float) -> list[Action]:
        if self.phase is SchedulerPhase.ENDED:
            return [Send(peer, Refuse(f"the job has ended: {self.error or 'all is done'}"[:8192]))]
        known = next((n for n in self._nodes.values() if n.join.incarnation == message.incarnation), None)
        if known is not None:  # a repeat, perhaps over a new connection
            if self._nodes.get(known.peer) is known:
                del self._nodes[known.peer]
            known.peer, known.heard = peer, now
            self._nodes[peer] = known
            return self._tell_state(known)
        lost = "" if self._lost is None else f"the job is lost: {lost_text(self._lost)}"
        if why := lost or self._admission.objection(message, self._nodes.values()):
            return [Send(peer, Refuse(why[:8192])), *self._account_for(message.incarnation)]
        self._nodes[peer] = Node(peer, message, message.rank, now)
        if self._missing():
            return self._tell_state(self._nodes[peer])
        return self._begin(now)

    def _missing(self) -> tuple[str, ...]:
        return self._admission.missing(self._nodes.values())

    def _present(self, role: str) -> list[Node]:
        return [node for node in self._nodes.values() if node.join.role == role]

    def _begin(self, now: float) -> list[Action]:
        """All are there: give ranks, in order of arrival, to those that have none, and tell everyone."""
        for role, size in self._sizes.items():
            taken = {node.rank for node in self._present(role)}
            free = iter([rank for rank in range(size) if rank not in taken])
            for node in self._present(role):
                node.rank = next(free) if node.rank is None else node.rank
        nodes = sorted(self._nodes.values(), key=lambda node: (node.join.role, node.rank or 0))
        self._members = tuple(
            Member(n.join.role, n.rank or 0, n.join.incarnation, n.join.host, n.join.pid, n.join.addresses)
            for n in nodes
        )
        self.phase, self._view, self._deadline = SchedulerPhase.RUNNING, 1, float("inf")
        for node in nodes:
            node.heard = now
        return [action for node in nodes for action in self._tell_state(node)]

    def _tell_state(self, node: Node) -> list[Action]:
        """What a node that has said nothing in particular should know."""
        if self._lost is not None:
            return [Send(node.peer, self._lost)]
        if self.phase is SchedulerPhase.JOINING:
            return [Send(node.peer, Admit(self._missing()))]
        actions: list[Action] = [Send(node.peer, View(self._view, node.rank or 0, self._members))]
        if self.phase is not SchedulerPhase.RUNNING:
            actions.append(Send(node.peer, Stop("all workers have left")))
        return actions

    # -- running

    def _heartbeat(self, node: Node, message: Heartbeat, now: float) -> list[Action]:
        reply = Send(node.peer, HeartbeatReply(self._view))
        missed = message.view != self._view or self.phase is not SchedulerPhase.RUNNING
        return [reply, *(self._tell_state(node) if missed else [])]

    def _barrier(self, node: Node, message: Barrier, now: float) -> list[Action]:
        rank, passed = node.rank, self._barriers.get(message.name, 0)
        if node.join.role != "worker" or rank is None or message.number > passed + 1:
            return self._stray(node.peer, message)
        if message.number <= passed:
            return [Send(node.peer, Ack(message.request))]
        arrived = self._arrived.setdefault((message.name, message.number), {})
        arrived[rank] = (node.peer, message.request)
        for gone in self._present("worker"):
            if gone.left and gone.rank not in arrived:
                return self._fail_barrier((message.name, message.number), gone)
        missing = [n.name for n in self._present("worker") if n.rank not in arrived]
        if missing:
            return [Send(node.peer, Pending(message.request, tuple(missing[:64])))]
        self._barriers[message.name] = message.number
        del self._arrived[message.name, message.number]
        return [Send(peer, Ack(request)) for peer, request in arrived.values()]

    def _link_ended(self, node: Node, message: LinkEnded, now: float) -> list[Action]:
        """`node` has lost its link to another: if that cannot be reached from here either, it is dead."""
        for other in self._present(message.role):
            if other.join.incarnation == message.incarnation and not other.left and not self._told_of_deaths:
                other.doubted_until = now + self._timeout_s / 2
                return self._knock(other, now)
        return []

    def _knock(self, node: Node, now: float) -> list[Action]:
        """Send something to a node that may be dead, and again while that is in doubt."""
        node.knock = now + _KNOCK_S if now <= node.doubted_until else float("inf")
        return [Send(node.peer, HeartbeatReply(self._view))] if now <= node.doubted_until else []

    def _fail_barrier(self, which: tuple[str, int], gone: Node) -> list[Action]:
        waiting = self._arrived.pop(which)
        text = f"barrier({which[0]!r}) waits for {gone.name}, which has left the job"
        return [Send(peer, Error(request, "peer_lost", text)) for peer, request in waiting.values()]

    def _leave(self, node: Node, message: Leave, now: float) -> list[Action]:
        acknowledged: list[Action] = [Send(node.peer, Ack(LEAVE_REQUEST))]
        if self.phase is SchedulerPhase.JOINING:
            del self._nodes[node.peer]
            return acknowledged
        if node.left:
            return acknowledged
        node.left = True
        if self.phase is SchedulerPhase.LOST:
            return acknowledged + self._end_if_alone()
        if message.error or (node.join.role == "server" and self.phase is SchedulerPhase.RUNNING):
            why = f"it has ended with an error: {message.error}" if message.error else "it has left the job"
            return acknowledged + self._lose_node(node, why, 0.0, now)
        for which in [w for w, arrived in self._arrived.items() if node.rank not in arrived]:
            if node.join.role == "worker":
                acknowledged += self._fail_barrier(which, node)
        return acknowledged + self._end_of_work(now)

    def _end_of_work(self, now: float) -> list[Action]:
        if self.phase is SchedulerPhase.RUNNING and all(n.left for n in self._present("worker")):
            self.phase, self._deadline = SchedulerPhase.STOPPING, now + self._timeout_s
            return [
                Send(n.peer, Stop("all workers have left")) for n in self._present("server") if not n.left
            ]
        return self._end_if_alone() if self.phase is SchedulerPhase.STOPPING else []

    def _end_if_alone(self) -> list[Action]:
        if not all(node.left for node in self._nodes.values()):
            return []
        if not self._members and len(self._nodes) + len(self._absent) < sum(self._sizes.values()):
            return []  # others are still on their way, and shall be told
        self.phase, self._deadline = SchedulerPhase.ENDED, float("inf")
        return [Exit(self.error)]

    # -- losing

    def _gone(self, node: Node, why: str, silent_s: float, now: float) -> list[Action]:
        """A node will say nothing more."""
        if self.phase is SchedulerPhase.JOINING:
            del self._nodes[node.peer]  # another may take its place
            return []
        node.left = True
        if self.phase is SchedulerPhase.RUNNING:
            return self._lose_node(node, why, silent_s, now)
        return self._end_if_alone()  # while stopping it makes no difference any more

    def _lose_node(self, node: Node, why: str, silent_s: float, now: float) -> list[Action]:
        join = node.join
        lost = PeerLost(join.role, node.rank or 0, join.host, join.pid, why[:8192], silent_s)
        return self._lose(lost, PeerLostError(lost_text(lost)), now)

    def _lose(self, lost: PeerLost, error: MXNetError, now: float) -> list[Action]:
        self.phase, self._deadline = SchedulerPhase.LOST, now + self._timeout_s
        self._lost, self.error = lost, error
        self._arrived.clear()
        told: list[Action] = [Send(node.peer, lost) for node in self._nodes.values() if not node.left]
        return [*told, Lost(error), *self._end_if_alone()]

    def _tell_lost(self, node: Node, message: Message, now: float) -> list[Action]:
        return self._tell_state(node)

    def _out_of_time(self, now: float) -> list[Action]:
        """The deadline of the phase has passed."""
        if self.phase is SchedulerPhase.JOINING:
            text = f"after {self._join_timeout_s:g} s still waiting for {', '.join(self._missing())}"
            refused: list[Action] = [Send(peer, Refuse(text)) for peer in self._nodes]
            self.error = DeadlineError(f"join: {text}")
            self.phase, self._deadline = SchedulerPhase.ENDED, float("inf")
            return [*refused, Lost(self.error), Exit(self.error)]
        self.phase, self._deadline = SchedulerPhase.ENDED, float("inf")
        return [Exit(self.error)]

    def _stray(self, peer: Peer, message: Message) -> list[Action]:
        """A message from a stranger, or of a kind that has no place here: counted, and nothing else."""
        self.violations += 1
        request = getattr(message, "request", 0)
        text = f"{type(message).__name__}: not from this peer, or not while {self.phase.value}"
        return [Send(peer, Error(request, "protocol", text))] if request else []

    def check_invariants(self) -> None:
        """Raise AssertionError where this state contradicts itself."""
        assert all(node.peer == peer for peer, node in self._nodes.items())
        for role, size in self._sizes.items():
            ranks = [node.rank for node in self._present(role) if node.rank is not None]
            assert len(set(ranks)) == len(ranks) and all(rank < size for rank in ranks)
            assert not self._members or len(ranks) == size
        assert (self._lost is None) or self.phase in (SchedulerPhase.LOST, SchedulerPhase.ENDED)
        workers_left = all(node.left for node in self._present("worker"))
        assert self.phase is not SchedulerPhase.RUNNING or not workers_left
        for name, number in self._arrived:
            assert number == self._barriers.get(name, 0) + 1


_HANDLERS: dict[SchedulerPhase, dict[type[Message], Callable[..., list[Action]]]] = {
    SchedulerPhase.JOINING: {Leave: SchedulerState._leave},
    SchedulerPhase.RUNNING: {
        Heartbeat: SchedulerState._heartbeat,
        LinkEnded: SchedulerState._link_ended,
        Barrier: SchedulerState._barrier,
        Leave: SchedulerState._leave,
    },
    SchedulerPhase.STOPPING: {Heartbeat: SchedulerState._heartbeat, Leave: SchedulerState._leave},
    SchedulerPhase.LOST: {
        Heartbeat: SchedulerState._tell_lost,
        LinkEnded: SchedulerState._tell_lost,
        Barrier: SchedulerState._tell_lost,
        Leave: SchedulerState._leave,
    },
    SchedulerPhase.ENDED: {},
}
"""What a node that has joined may send, by phase; everything else is a violation. Join is always heard."""
