"""How a server deals with rounds that repeat: in turns, and what is expected of these by lanes.

Nothing here can be told from the outside, but that it is done sooner than in `server_rounds`.
"""

from __future__ import annotations

from collections.abc import Sequence

from dmod.kvstore.actions import Action, Peer, Send
from dmod.kvstore.lanes import TAKEN, Lanes
from dmod.kvstore.messages import Again, Error, Same
from dmod.kvstore.server_requests import Refused, Request
from dmod.kvstore.server_rounds import ServerRounds
from dmod.kvstore.standing import Standing
from dmod.kvstore.turns import Arrival, Turn

__all__ = ["ServerTurns"]


class ServerTurns(ServerRounds):
    """The rounds of a server, of which those that repeat are dealt with in turns.

    Attributes
    ----------
    lanes : Lanes
        What is expected; `end_lane` is for whoever sees that it has come.
    """

    lanes: Lanes

    def _again_in_turn(self, peer: Peer, rank: int, message: Again) -> list[Action] | None:
        """`_again` where it is one of those that are expected; None, and nothing is done, where it is not."""
        standing = self._standing.find(rank, message.standing)
        if standing is None or not standing.means(message, self._table.generation):
            return None
        turn = standing.turn
        if message.epoch != self.epoch or self._ended or self._roster.gone:
            return None
        if self.lanes.is_open:
            outcome = self.lanes.taken(rank, message)
            if outcome >= 0:
                return self.end_lane(outcome)
            if outcome == TAKEN:
                return []
            if self.lanes.uses(turn):
                return None
        if not turn.takes(rank, message.round):
            return None
        for piece in turn.pieces if self._waiting else ():
            if self._waiting.get(piece):
                return None
        failed = self._arrive(turn, [(peer, rank, message, standing)])
        if failed is not None or len(turn.arrived) < len(self._roster.workers):
            return failed or []
        arrived = turn.arrived
        actions = self._end_turn(turn)
        self.lanes.turn_ended(turn, arrived, message.epoch, message.round)
        return actions

    def end_lane(self, number: int) -> list[Action]:
        """All have come for the turn that has this number among the lanes."""
        turn = self.lanes.turns[number]
        failed = self._arrive(turn, self.lanes.arrivals(number))
        return self._end_turn(turn) if failed is None else failed

    def _arrive(self, turn: Turn, arrivals: Sequence[Arrival]) -> list[Action] | None:
        """These have come for a turn, and contribute to its round.

        None if they have; without memory for it, what follows from that.
        """
        self._turns.open[turn] = None
        turn.arrived += arrivals
        try:
            for _, rank, _, standing in arrivals:
                for piece, array in zip(turn.pieces, standing.arrays, strict=True):
                    piece.current.add(rank, array)
        except MemoryError:
            actions = self._adopt_turns()
            request = self._requests.find(arrivals[0][1], arrivals[0][2].request)
            return actions if request is None else actions + self._out_of_memory(request)
        return None

    def _end_turn(self, turn: Turn) -> list[Action]:
        """All have come: apply the round, and answer them."""
        try:
            for piece in turn.pieces:
                piece.apply()
        except Exception as error:  # an optimizer may raise anything
            actions = self._adopt_turns() + self._give_up(piece, error)
            return actions + [a for other in turn.pieces if other.complete for a in self._advance(other)]
        del self._turns.open[turn]
        arrived, turn.arrived = turn.arrived, []
        values = [piece.value for piece in turn.pieces if piece.value is not None]
        answers: list[Action] = []
        for peer, rank, message, standing in arrived:
            place = standing.place(values)
            if place:
                answers.append(Send(peer, Same(message.request, place)))
            else:
                answers.append(self._answer(self._as_request(peer, rank, message, standing)))
        return answers

    def _adopt_turns(self) -> list[Action]:
        """Go on with what has come in turns as with any other requests, and expect nothing any more."""
        actions: list[Action] = []
        for turn, arrivals in self.lanes.close():
            actions += self._arrive(turn, arrivals) or ()
        for turn in self._turns.open:
            for arrived in turn.arrived:
                self._wait(self._as_request(*arrived))
            turn.arrived = []
        self._turns.open.clear()
        return actions

    @staticmethod
    def _as_request(peer: Peer, rank: int, message: Again, standing: Standing) -> Request:
        rounds = dict.fromkeys(standing.pieces, message.round)
        return Request(peer, rank, message, rounds=rounds, standing=standing)

    def _out_of_memory(self, request: Request) -> list[Action]:
        """Give up the keys of a request, of which any part may have been done; all others stay of use."""
        refusal = Refused("failed", f"{request.what}: {self._table.memory_text}")
        message = request.message if request.standing is None else request.standing.message
        keys = dict.fromkeys(getattr(ref, "key", None) for ref in getattr(message, "pieces", ()))
        keys |= dict.fromkeys([getattr(request.message, "key", None)])
        actions = [action for key in keys if key is not None for action in self._table.fail_key(key, refusal)]
        if not request.closed:
            self._requests.close(request)
            actions.append(Send(request.peer, Error(request.message.request, refusal.code, refusal.text)))
        return actions
