"""Exchanges that repeat: the same bits as others, whatever is forgotten, lost or done in between."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from dmod.base import DeadlineError, EpochEnded, ProtocolError
from dmod.kvstore import express, lanes, server_state
from dmod.kvstore.actions import SCHEDULER, Done
from dmod.kvstore.client_state import ClientState
from dmod.kvstore.messages import (
    Again,
    Dropped,
    EndEpoch,
    Error,
    PeerLost,
    PieceRef,
    Poll,
    Pull,
    Push,
    PushPull,
    Resend,
    Same,
    Values,
)
from dmod.kvstore.server_state import ServerState
from dmod.kvstore.wire import decode, encode
from dmod.ndarray.flat import FlatLayout
from tests.kvstore import test_client_state, test_server_state
from tests.kvstore.simulator import CHAOS, Memory, Simulator, Worker, values_of_epochs
from tests.kvstore.test_server_state import array, kinds

CONFIG = {"rate": 0.1, "momentum": 0.9}
LAYOUTS = {
    f"key{i}": FlatLayout.plan([(0, "x", (size,))], "float32") for i, size in enumerate((5, 300, 9, 7))
}
EPOCHS, ROUNDS = 2, 8


# -- whole clusters


@pytest.mark.parametrize("mode", ["update", "sum"])
@pytest.mark.parametrize("network", [{}, CHAOS], ids=["calm", "chaos"])
@pytest.mark.parametrize("seed", range(6))
def test_repeated_calls_give_the_same_bits_whatever_comes_between(
    seed: int, network: dict[str, float], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers repeat a tuple and now and then do something else; one has a batch more than the others."""
    num_workers, keys = 2 + seed % 2, list(LAYOUTS)
    rng = np.random.default_rng(seed)
    shape = (EPOCHS, ROUNDS + 1, len(keys), num_workers, 304)
    grads = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype("f4")
    sizes = [LAYOUTS[key].size for key in keys]
    expected = values_of_epochs(grads[:, :ROUNDS], sizes, mode, CONFIG)
    seen = {"again": 0, "adopted": 0}
    handle, adopt = ServerState._again, ClientState._adopt

    def counting_again(server: ServerState, request: Any) -> Any:
        seen["again"] += 1
        return handle(server, request)

    def counting_adopt(client: ClientState) -> None:
        seen["adopted"] += client._under_way is not None
        adopt(client)

    monkeypatch.setitem(server_state._HANDLERS, Again, counting_again)
    monkeypatch.setattr(ClientState, "_adopt", counting_adopt)

    def program(worker: Worker) -> Any:
        client, rank = worker.client, worker.client.member.rank
        choose = random.Random(seed * 10 + rank)
        outs = [np.zeros(LAYOUTS[key].size, "f4") for key in keys]
        arrays = [np.zeros_like(out) for out in outs]
        shared = client._shared[0].empty(outs[1].size, np.dtype("f4"))
        assert shared is not None
        arrays[1] = shared  # one lies where the servers read it, the others are copied there
        together = tuple((key, a, [out]) for key, a, out in zip(keys, arrays, outs, strict=True))
        single = [(entry,) for entry in together]
        for key, out in zip(keys, outs, strict=True):
            first = out.copy() if rank == 0 and mode == "update" else None
            yield client.init(key, LAYOUTS[key], first, worker.now(), mode=mode)
        if mode == "update":
            yield client.set_optimizer(CONFIG, worker.now())
        for epoch in range(EPOCHS):
            for round in range(ROUNDS + (rank == 1)):
                for i, a in enumerate(arrays):
                    a[:] = grads[epoch, round, i, rank, : a.size]
                kind = choose.choice(["all"] * 8 + ["single", "push", "pull"])
                try:
                    if kind == "single":
                        yield [client.pushpull(entry, worker.now()) for entry in single]
                    elif kind == "push":
                        yield client.push([entry[:2] for entry in together], worker.now())
                        yield client.pull([(key, to) for key, _, to in together], worker.now())
                    else:
                        yield client.pushpull(together, worker.now())
                    if kind == "pull":
                        yield client.pull([(keys[1], [outs[1]])], worker.now())
                except EpochEnded:
                    assert round == ROUNDS
            for out, value in zip(outs, expected[epoch], strict=True):
                np.testing.assert_array_equal(out, value)
            yield client.end_epoch(worker.now())

    simulator = Simulator(seed, num_workers, 1 + seed % 2, program, unit_bytes=512, shared=True, **network)
    simulator.run_without_errors()
    assert all(seen.values()), seen


@pytest.mark.parametrize(
    "network", [{}, {"drop": 0.005, "repeat": 0.01}, CHAOS], ids=["calm", "rough", "chaos"]
)
@pytest.mark.parametrize("seed", range(6))
def test_what_leaves_and_is_expected_without_ceremony_has_the_same_bits(
    seed: int, network: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All arrays lie where servers read them; what has left is taken up at any point of its way."""
    monkeypatch.setattr(lanes, "QUIET_TURNS", 0)
    monkeypatch.setattr(express, "WANTED_AFTER", 0)
    used = {"trips": 0, "lanes": 0}
    end_lane = ServerState.end_lane

    def counting_end(server: ServerState, number: int) -> Any:
        used["lanes"] += 1
        return end_lane(server, number)

    monkeypatch.setattr(ServerState, "end_lane", counting_end)
    num_workers, keys, rounds = 2 + seed % 2, list(LAYOUTS), 20
    rng = np.random.default_rng(seed)
    grads = rng.standard_normal((EPOCHS, rounds, len(keys), num_workers, 304)).astype("f4")
    expected = values_of_epochs(grads, [LAYOUTS[key].size for key in keys], "update", CONFIG)

    def program(worker: Worker) -> Any:
        client, rank = worker.client, worker.client.member.rank
        choose = random.Random(seed * 10 + rank)
        outs = [np.zeros(LAYOUTS[key].size, "f4") for key in keys]
        arrays = [client._shared[0].empty(out.size, np.dtype("f4")) for out in outs]
        calls = [((key, a, [out]),) for key, a, out in zip(keys, arrays, outs, strict=True)]
        for key, out in zip(keys, outs, strict=True):
            yield client.init(key, LAYOUTS[key], out if rank == 0 else None, worker.now())
        yield client.set_optimizer(CONFIG, worker.now())
        for epoch in range(EPOCHS):
            for round in range(rounds):
                for i, (call, a) in enumerate(zip(calls, arrays, strict=True)):
                    a[:] = grads[epoch, round, i, rank, : a.size]
                    yield repeat(worker, call, choose, used)
                if choose.random() < 0.05:
                    yield client.pull([(keys[0], [outs[0]])], worker.now())
            for out, value in zip(outs, expected[epoch], strict=True):
                np.testing.assert_array_equal(out, value)
            yield client.end_epoch(worker.now())

    simulator = Simulator(
        seed, num_workers, 1 + seed % 2, program, unit_bytes=512, shared=True, lanes=True, **network
    )
    simulator.run_without_errors()
    assert used["trips"] > 100 and used["lanes"] > (100 if network is not CHAOS else 0), used


def repeat(worker: Worker, entries: Any, choose: random.Random, used: dict[str, int]) -> Any:
    """Begin a call as `Client.repeat` does, if that can be; not all of it may have been sent."""
    client = worker.client
    call = client.repeated(entries)
    express = client.set_off(call, worker.now()) if call is not None and call.asks() else None
    if express is None:
        return client.pushpull(entries, worker.now())
    used["trips"] += 1
    sent = choose.random() < 0.7
    actions = client.go_on(sent, [0] * len(express.rounds), worker.now())
    return express.number, [*express.sends(), *actions] if sent else actions


@pytest.mark.parametrize("repeats", [True, False], ids=["repeated", "new every time"])
@pytest.mark.parametrize("seed", range(6))
def test_calls_that_are_made_again_after_their_deadline_add_up_what_was_given(
    seed: int, repeats: bool
) -> None:
    """The network is slower than the deadline: of a call that has failed, the request goes on."""
    layout = LAYOUTS["key0"]
    failed = []

    def program(worker: Worker) -> Any:
        client, rank = worker.client, worker.client.member.rank
        yield client.init("w", layout, None, worker.now(), mode="sum")
        simulator.slow_s = 1.2
        gradient, out = np.zeros(layout.size, "f4"), np.zeros(layout.size, "f4")
        entries = (("w", gradient, [out]),)
        for round in range(1, 30):
            gradient[:] = 100.0**rank * round
            try:
                yield client.pushpull(entries if repeats else list(entries), worker.now())
            except DeadlineError:
                failed.append(rank)
            else:
                assert (out == 101 * round).all(), (rank, round, out)

    simulator = Simulator(seed, 2, 1, program, shared=True, wait_s=1.0)
    simulator.run_without_errors()
    assert failed


# -- a worker


class Bench(test_client_state.Bench):
    """A worker that shares memory with its server, and has made the same call once."""

    def __init__(self, place: int = 7, **settings: Any):
        super().__init__(**settings)
        memory = Memory()
        self.client.share_memory(0, memory)
        self.init("w")
        self.grad, self.out = memory.empty(64, "f4"), np.zeros(64, "f4")
        self.entries = (("w", self.grad, [self.out]),)
        self.value = np.full(64, 1.0, "f4")
        self.again()
        [message] = self.take()
        assert isinstance(message, PushPull) and message.standing
        self.standing = message.standing
        self.hear("server 0", Values(message.request, 1, place), self.value)
        assert (self.out == 1).all()

    def again(self) -> int:
        return self.call("pushpull", self.entries)


def test_a_call_that_the_server_knows_is_repeated_by_a_few_numbers() -> None:
    bench = Bench()
    for round in (2, 3):
        number = bench.again()
        [message] = bench.take()
        assert message == Again(message.request, bench.standing, 0, round)  # type: ignore[attr-defined]
        bench.value[:] = round
        bench.hear("server 0", Same(message.request, 7))  # type: ignore[attr-defined]
        assert bench.ends[number] == Done(number) and (bench.out == round).all()


def test_values_at_an_unknown_place_are_asked_for_in_full() -> None:
    bench = Bench()
    number = bench.again()
    [again] = bench.take()
    bench.hear("server 0", Same(again.request, 8))  # type: ignore[attr-defined]
    [full] = bench.take()
    assert full == PushPull(
        again.request,  # type: ignore[attr-defined]
        0,
        "float32",
        (PieceRef("w", 0, 2),),
        False,
        False,
        bench.standing,
    )
    bench.hear("server 0", Values(full.request, 1, 8), np.full(64, 5.0, "f4"))  # type: ignore[attr-defined]
    assert bench.ends[number] == Done(number) and (bench.out == 5).all()


def test_a_server_that_has_forgotten_gets_all_again() -> None:
    bench = Bench()
    number = bench.again()
    [again] = bench.take()
    bench.hear("server 0", Resend((again.request,)))  # type: ignore[attr-defined]
    [full] = bench.take()
    assert isinstance(full, PushPull) and full.pieces == (PieceRef("w", 0, 2),)
    bench.hear("server 0", Values(full.request, 1, 9), bench.value)
    assert bench.ends[number] == Done(number)


def test_a_call_without_an_answer_is_repeated_and_ends_at_its_deadline() -> None:
    bench = Bench(wait_s=30.0)
    number = bench.again()
    assert bench.client.next_timer() is not None
    bench.take()
    bench.timer(bench.now + 1.0)
    [message] = bench.take()
    assert isinstance(message, Again)
    while number not in bench.ends and bench.now < 60:
        bench.hear("server 0", Resend(()))
        bench.timer(bench.now + 1.0)
    error = bench.error(number)
    assert isinstance(error, DeadlineError) and "still waits in round 2" in str(error)


def test_a_peer_that_is_lost_fails_the_call_and_names_its_round() -> None:
    bench = Bench()
    number = bench.again()
    bench.hear(SCHEDULER, PeerLost("worker", 1, "host", 2, "silent", 10.0))
    assert "was waiting in round 2 of epoch 0" in str(bench.error(number))


def test_a_round_that_is_dropped_is_counted_back() -> None:
    bench = Bench()
    number = bench.again()
    [again] = bench.take()
    bench.hear("server 0", Dropped(again.request, 0, 1))  # type: ignore[attr-defined]
    assert isinstance(bench.error(number), EpochEnded)
    bench.call("pull", [("w", [bench.out])])
    [pull] = bench.take()
    assert isinstance(pull, Pull) and pull.pieces == (PieceRef("w", 0, 1),)


def test_after_a_plain_push_the_standing_request_is_announced_again() -> None:
    """Pushes take turns between two places, and a server reads the first one until its round is applied."""
    bench = Bench()
    bench.call("push", [("w", bench.grad)])
    [push] = bench.take()
    assert isinstance(push, Push)
    bench.hear("server 0", test_client_state.Ack(push.request))
    bench.again()
    [message] = bench.take()
    assert isinstance(message, PushPull) and message.standing == bench.standing


def test_what_was_interrupted_before_it_left_is_copied_when_it_is_sent() -> None:
    bench = Bench()
    private = np.full(64, 5.0, "f4")
    bench.entries = (("w", private, [bench.out]),)
    bench.again()
    [announced] = bench.sent
    encode(announced.message, announced.payloads)
    [message] = bench.take()
    bench.hear("server 0", Values(message.request, 1, 7), bench.value)
    slot = announced.payloads[0].slot  # type: ignore[union-attr]
    private[:] = 6
    bench.again()
    bench.sent.clear()  # Ctrl-C comes before the message is encoded
    bench.timer(bench.now + 1.0)
    [poll] = bench.take()
    assert isinstance(poll, Poll)
    bench.hear("server 0", Resend(poll.requests))
    for send in bench.sent:
        encode(send.message, send.payloads)
    [full] = bench.take()
    assert isinstance(full, PushPull) and (slot == 6).all()
    private[:] = 9  # the call has been interrupted, and its array is used again
    bench.hear("server 0", Resend(poll.requests))
    for send in bench.sent:
        encode(send.message, send.payloads)
    assert (slot == 6).all()


def test_other_arrays_for_the_same_keys_are_announced_by_the_same_number() -> None:
    bench = Bench()
    bench.entries = (("w", bench.grad, [np.zeros(64, "f4")]),)
    bench.again()
    [message] = bench.take()
    assert isinstance(message, PushPull) and message.standing == bench.standing


def test_another_call_joins_one_that_is_under_way() -> None:
    bench = Bench()
    first = bench.again()
    second = bench.call("barrier")
    assert [type(m) for m in bench.take()] == [Again]  # the barrier waits for it
    bench.hear("server 0", Same(bench.client._outstanding._number, 7))
    assert bench.ends[first] == Done(first) and second not in bench.ends


# -- a server


class ServerBench(test_server_state.Bench):
    """A server whose values can be read where they lie."""

    def __init__(self, shared: bool = True):
        super().__init__(2)
        self.server._standing._shared = lambda values: shared
        self.memory = [array(0.0), array(0.0)]

    def announce(self, rank: int, round: int, value: float) -> Any:
        self.memory[rank][:] = value
        message = PushPull(self.next(), 0, "float32", (PieceRef("w", 0, round),), False, False, 5)
        return self.say(rank, message, self.memory[rank])

    def again(self, rank: int, round: int, value: float, epoch: int = 0) -> Any:
        self.memory[rank][:] = value
        return self.say(rank, Again(self.next(), 5, epoch, round))


def test_known_requests_are_answered_by_where_the_values_lie() -> None:
    bench = ServerBench()
    bench.set_optimizer()
    bench.announce(0, 1, 1.0)
    (_, first), (_, second) = bench.announce(1, 1, 2.0)
    assert isinstance(first, Values) and isinstance(second, Values) and first.place and second.place
    value = bench.sent[0][0]
    assert bench.again(0, 2, 3.0) == []
    answers = bench.again(1, 2, 4.0)
    assert [(rank, m.place) for rank, m in answers] == [(0, first.place), (1, second.place)]
    assert kinds(answers) == [(0, "Same"), (1, "Same")] and (value == -0.5 * (1 + 2 + 3 + 4)).all()
    assert kinds(bench.again(1, 2, 9.0)) == [(1, "Same")]  # a repeat is answered, and not added
    assert (value == -5).all()


def test_sums_that_change_places_are_told_once_for_each_place() -> None:
    bench = ServerBench()
    bench.announce(0, 1, 1.0)
    bench.announce(1, 1, 2.0)
    told = []
    for round in range(2, 8):
        assert bench.again(0, round, float(round)) == []
        told += [type(m) for _, m in bench.again(1, round, 1.0)]
    assert Values in told[:4] and set(told[4:]) == {Same}


def test_values_in_private_memory_are_sent_every_time() -> None:
    bench = ServerBench(shared=False)
    bench.announce(0, 1, 1.0)
    assert [m.place for _, m in bench.announce(1, 1, 2.0)] == [0, 0]
    bench.again(0, 2, 1.0)
    assert kinds(bench.again(1, 2, 1.0)) == [(0, "Values"), (1, "Values")]


def test_what_is_not_known_is_asked_for_in_full() -> None:
    bench = ServerBench()
    [(_, answer)] = bench.again(0, 1, 1.0)
    assert answer == Resend((bench.request,))
    bench.announce(0, 1, 1.0)
    bench.announce(1, 1, 1.0)
    bench.server._table.bundles.generation += 1  # a piece has entered a bundle
    [(_, answer)] = bench.again(0, 2, 1.0)
    assert answer == Resend((bench.request,))


def test_a_late_repeat_of_what_a_number_meant_before_is_not_taken_for_the_new_one() -> None:
    bench = ServerBench()
    bench.announce(0, 1, 1.0)
    late = Again(bench.next(), 5, 0, 2)
    bench.announce(1, 1, 1.0)
    bench.announce(0, 2, 1.0)
    [(_, answer)] = bench.say(0, late)
    assert answer == Resend((late.request,))
    old = PushPull(late.request, 0, "float32", (PieceRef("w", 0, 2),), False, False, 5)
    bench.say(0, old, array(9.0))
    assert kinds(bench.announce(1, 2, 1.0))[-1] == (1, "Values")
    bench.again(0, 3, 3.0)
    bench.again(1, 3, 4.0)
    assert (bench.server._table.ready["w", 0].value == 7).all()


def test_rounds_and_epochs_of_repeats_are_checked_as_any_others() -> None:
    bench = ServerBench()
    bench.announce(0, 1, 1.0)
    bench.announce(1, 1, 1.0)
    for round, epoch, text in (
        (9, 0, "round 9"),
        (3, 0, "before round 2"),
        (0, 0, "round 0"),
        (2, 5, "epoch 5"),
    ):
        [(_, answer)] = bench.again(0, round, 1.0, epoch)
        assert isinstance(answer, Error) and answer.code == "protocol" and text in answer.text
        assert "pushpull('w')" in answer.text
    bench.end(1)
    [(_, answer)] = bench.again(0, 2, 1.0)
    assert isinstance(answer, Dropped) and answer.ended_by == 1
    assert kinds(bench.say(0, EndEpoch(bench.next(), 0, 1))) == [(1, "EpochDone"), (0, "EpochDone")]
    assert kinds(bench.again(0, 2, 1.0)) == [(0, "Dropped")]  # late, of the epoch before


# -- the wire


@pytest.mark.parametrize("message", [Again(1, 2, 3, 4), Same((1 << 53) - 1, 0)], ids=["Again", "Same"])
def test_short_forms_are_whole_or_refused(message: Again | Same) -> None:
    [frame] = encode(message)
    assert decode([frame]) == (message, [])
    for length in range(len(frame)):
        with pytest.raises(ProtocolError):
            decode([frame[:length]])
    with pytest.raises(ProtocolError):
        decode([frame, b""])
    rng = random.Random(3)
    for _, position in itertools.product(range(20), range(len(frame))):
        garbled = bytearray(frame)
        garbled[position] = rng.randrange(256)
        try:
            assert isinstance(decode([bytes(garbled)])[0], Again | Same)
        except ProtocolError:
            continue
