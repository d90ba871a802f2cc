"""The next batch is copied to its devices while they compute this one, and no bit depends on it."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.device import pinned_memory, set_gpus
from dmod.device.standin import StandInBackend, stand_in_gpus
from dmod.io.buffers import Buffers
from tests.recovery.program import Stopped, manager, stop_after

RNG = np.random.RandomState(0)
DATA = RNG.randn(32, 6).astype("float32")
LABEL = RNG.randint(0, 3, 32).astype("float32")
BATCHES, EPOCHS = 4, 2


class Watcher:
    """Keeps what streams do, and holds it up until something has happened."""

    def __init__(self, hold: Callable[[Counter[tuple[str, str, str]], str, str, str], bool] | None = None):
        self.seen: list[tuple[str, str, str]] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._changed = threading.Condition()
        self._hold = hold

    def __call__(self, stream: str, work: str, moment: str) -> None:
        with self._changed:
            if self._hold is not None and moment == "begin":
                hold = self._hold
                free = self._changed.wait_for(lambda: not hold(self.counts, stream, work, moment), 20)
                assert free, f"{stream}: {work} waits in vain after {self.seen[-8:]}"
            self.seen.append((stream, work, moment))
            self.counts[stream, work, moment] += 1
            self._changed.notify_all()

    def copies(self) -> int:
        return sum(n for (_, work, moment), n in self.counts.items() if (work, moment) == ("copy", "end"))


def early(counts: Counter[tuple[str, str, str]], stream: str, work: str, _: str) -> bool:
    """Hold a backward pass up until the next batch's two arrays are copied, if there is one."""
    if work != "backward":
        return False
    device = stream.removesuffix(" computes")
    done = counts[stream, "backward", "end"]
    after = done // BATCHES * (BATCHES - 1) + min(done % BATCHES + 1, BATCHES - 1)
    return counts[f"{device} copies", "copy", "end"] < 2 * after


def late(counts: Counter[tuple[str, str, str]], stream: str, work: str, _: str) -> bool:
    """Hold a copy up until the computing waits for it."""
    device = stream.removesuffix(" copies")
    waits = counts[f"{device} computes", "wait", "begin"]
    return work == "copy" and counts[stream, "copy", "begin"] >= 2 * waits


def net() -> Any:
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, name="fc1")
    x = mx.sym.Dropout(mx.sym.Activation(x, act_type="relu", name="relu"), p=0.3, name="drop")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=3, name="fc2"), name="softmax")


def values(mod: Any) -> dict[str, np.ndarray]:
    args, aux = mod.get_params()
    return {name: value.asnumpy() for name, value in {**args, **aux}.items()}


def arrays(**kwargs: Any) -> Any:
    return mx.io.NDArrayIter(DATA, LABEL, len(DATA) // BATCHES, **kwargs)


def fitted(
    train: Any, count: int = 1, mod: Any = None, extra: Any = None, **kwargs: Any
) -> tuple[Any, list[Any]]:
    """A module after a fit, and what its metric said after every batch."""
    mx.random.seed(1)
    np.random.seed(1)
    said: list[Any] = []
    mod = mod or mx.mod.Module(net(), context=[mx.gpu(i) for i in range(count)])
    mod.fit(
        train,
        num_epoch=EPOCHS,
        eval_metric="ce",
        initializer=mx.init.Xavier(),
        optimizer_params={"learning_rate": 0.5, "momentum": 0.9},
        batch_end_callback=[lambda param: said.append(param.eval_metric.get()), *([extra] if extra else [])],
        **kwargs,
    )
    return mod, said


def same(one: tuple[Any, list[Any]], other: tuple[Any, list[Any]]) -> None:
    expected, found = values(one[0]), values(other[0])
    assert expected.keys() == found.keys() and one[1] == other[1]
    for name, value in expected.items():
        assert np.array_equal(value, found[name]), name


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, list[Any]]]:
    """A fit without copies ahead."""

    def run(train: Any, count: int = 1, **kwargs: Any) -> tuple[Any, list[Any]]:
        monkeypatch.setenv("DMOD_COPY_AHEAD", "0")
        watch = Watcher()
        with stand_in_gpus(2, watch):
            found = fitted(train, count, **kwargs)
            values(found[0])
        assert not watch.copies()
        monkeypatch.delenv("DMOD_COPY_AHEAD")
        return found

    return run


@pytest.mark.parametrize("hold", [early, late], ids=["early", "late"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_is_copied_while_the_one_before_is_computed(plain, hold, count):
    expected = plain(arrays(), count)
    watch = Watcher(hold)
    with stand_in_gpus(2, watch):
        same(expected, fitted(arrays(), count))
    assert watch.copies() == 2 * (BATCHES - 1) * EPOCHS * count
    copied, computed = 0, 0
    for stream, work, moment in watch.seen:  # what `early` forces, and `late` forbids
        copied += (stream, work, moment) == ("gpu(0) copies", "copy", "end")
        if (stream, work, moment) == ("gpu(0) computes", "backward", "end"):
            epoch, batch = divmod(computed, BATCHES)
            done = 2 * (epoch * (BATCHES - 1) + batch)
            assert copied == done + (2 if hold is early and batch < BATCHES - 1 else 0)
            computed += 1


class Recording(StandInBackend):
    """Notes in which order the host starts what."""

    def __init__(self) -> None:
        super().__init__(0)
        self.log: list[tuple[str, Any]] = []

    def launch(self, steps: Any, what: str) -> None:
        self.log.append((what, None))
        super().launch(steps, what)

    def mark(self) -> Any:
        event = super().mark()
        self.log.append(("mark", event))
        return event

    def copy_in_ahead(self, target: Any, source: Any, after: Any) -> Any:
        event = super().copy_in_ahead(target, source, after)
        self.log.append(("copy", (target._array.ctypes.data, after, event)))
        return event

    def wait_for(self, event: Any) -> None:
        self.log.append(("wait", event))
        super().wait_for(event)


def test_a_copy_waits_for_what_read_its_memory_before_and_for_nothing_later():
    gpu = Recording()
    before = set_gpus([gpu])
    try:
        fitted(arrays())
    finally:
        set_gpus(before)
    places: dict[str, list[int]] = {}
    for place, (what, _) in enumerate(gpu.log):
        places.setdefault(what, []).append(place)
    forward, backward, copies = places["forward"], places["backward"], places["copy"]
    marks = {id(gpu.log[place][1]): place for place in places["mark"]}
    assert len(forward) == EPOCHS * BATCHES and len(copies) == 2 * EPOCHS * (BATCHES - 1)
    memory: set[int] = set()  # of the last batch that was copied
    for first, second in zip(copies[::2], copies[1::2], strict=True):
        present = sum(place < first for place in forward) - 1
        assert forward[present] < backward[present] < first < second
        jobs = gpu.log[first][1], gpu.log[second][1]
        for _, after, _ in jobs:
            began = marks[id(after)]
            assert began < forward[present] and (present == 0 or backward[present - 1] < began)
        waits = [place for place in places["wait"] if gpu.log[place][1] is jobs[1][2]]
        assert len(waits) == 1 and second < waits[0] < forward[present + 1]
        assert memory.isdisjoint({jobs[0][0], jobs[1][0]})
        memory = {jobs[0][0], jobs[1][0]}


class Reused(mx.io.DataIter):
    """Batches in the same few arrays, which the next ones overwrite."""

    def __init__(self, buffers: int, fails_at: int = -1, **flags: bool):
        super().__init__(8)
        self.__dict__.update(flags)
        self.provide_data = [mx.io.DataDesc("data", (8, 6))]
        self.provide_label = [mx.io.DataDesc("softmax_label", (8,))]
        self.buffers = [(mx.nd.zeros((8, 6)), mx.nd.zeros((8,))) for _ in range(buffers)]
        self.at, self.fails_at = 0, fails_at

    def reset(self) -> None:
        self.at = 0

    def next(self) -> Any:
        if self.at == self.fails_at:
            self.fails_at = -1
            raise OSError("the disk is gone")
        if self.at == BATCHES:
            raise StopIteration
        data, label = self.buffers[self.at % len(self.buffers)]
        rows = slice(8 * self.at, 8 * self.at + 8)
        data[:], label[:] = DATA[rows], LABEL[rows]
        self.at += 1
        return mx.io.DataBatch([data], [label], 0)


@pytest.mark.parametrize("prefetchable", [False, True])
def test_an_iterator_may_overwrite_its_arrays(plain, prefetchable):
    def train() -> Reused:
        return Reused(3 if prefetchable else 1, prefetchable=prefetchable)

    expected = plain(train())
    watch = Watcher(late)
    with stand_in_gpus(2, watch):
        same(expected, fitted(train()))
    assert bool(watch.copies()) == prefetchable


class Uneven(mx.io.DataIter):
    """The last batch is smaller."""

    peekable = True

    def __init__(self) -> None:
        super().__init__(8)
        self.provide_data = [mx.io.DataDesc("data", (8, 6))]
        self.provide_label = [mx.io.DataDesc("softmax_label", (8,))]
        self.at = 0

    def reset(self) -> None:
        self.at = 0

    def next(self) -> Any:
        if self.at >= 28:
            raise StopIteration
        rows = slice(self.at, min(self.at + 8, 28))
        self.at += 8
        return mx.io.DataBatch([mx.nd.array(DATA[rows])], [mx.nd.array(LABEL[rows])], 0)

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def test_the_last_batch_may_be_smaller(plain):
    expected = plain(Uneven())
    watch = Watcher(late)
    with stand_in_gpus(2, watch):
        same(expected, fitted(Uneven()))
    assert watch.copies() == 2 * 2 * EPOCHS


def bucketing() -> Any:
    def sym_gen(length: int) -> Any:
        x = mx.sym.Embedding(mx.sym.Variable("data"), input_dim=10, output_dim=4, name="embed")
        x = mx.sym.FullyConnected(mx.sym.mean(x, axis=1), num_hidden=10, name="fc")
        label = mx.sym.slice_axis(mx.sym.Variable("softmax_label"), axis=1, begin=0, end=1)
        return (
            mx.sym.SoftmaxOutput(x, mx.sym.Reshape(label, shape=(-1,)), name="softmax"),
            ["data"],
            ["softmax_label"],
        )

    return mx.mod.BucketingModule(sym_gen, default_bucket_key=6, context=mx.gpu(0))


def sentences() -> Any:
    rng = np.random.RandomState(2)
    random.seed(3)
    np.random.seed(3)
    rows = [rng.randint(1, 10, n).tolist() for n in rng.choice([3, 6], 40)]
    return mx.rnn.BucketSentenceIter(rows, 4, buckets=[3, 6], invalid_label=0)


class FirstLabel(mx.metric.EvalMetric):
    """The sum of all outputs."""

    def update(self, labels: Any, preds: Any) -> None:
        self.sum_metric += float(preds[0].asnumpy()[:, 3].sum())
        self.num_inst += 1


def test_buckets_take_turns_with_their_inputs(monkeypatch):
    found = []
    for on in ("0", "1"):
        monkeypatch.setenv("DMOD_COPY_AHEAD", on)
        watch = Watcher(late)
        with stand_in_gpus(1, watch):
            mod = bucketing()
            train = sentences()
            mx.random.seed(1)
            metric = FirstLabel("first")
            mod.fit(train, num_epoch=3, eval_metric=metric, initializer=mx.init.Xavier())
            found.append((mod, [metric.get()]))
            values(mod)
        assert bool(watch.copies()) == (on == "1")
    same(*found)


def test_predict_and_score_copy_ahead_with_and_without_labels(monkeypatch):
    loss = mx.sym.MakeLoss(
        mx.sym.broadcast_add(
            mx.sym.sum(mx.sym.Variable("data"), axis=1), mx.sym.Variable("softmax_label"), name="sum"
        )
    )
    found = []
    for on in ("0", "1"):
        monkeypatch.setenv("DMOD_COPY_AHEAD", on)
        watch = Watcher(late)
        with stand_in_gpus(1, watch):
            mod = mx.mod.Module(loss, context=mx.gpu(0))
            mod.bind([("data", (8, 6))], [("softmax_label", (8,))], for_training=False)
            mod.init_params()
            results = [mod.score(arrays(), "loss")]
            # the labels of the last batch that had some stay
            unlabelled = mx.io.NDArrayIter(DATA, batch_size=8)
            results.append(mod.predict(unlabelled).asnumpy().tolist())
            results.append(mod.predict(arrays(), num_batch=2).asnumpy().tolist())
            results.append(mod.predict(unlabelled).asnumpy().tolist())
            train = arrays()
            for _ in mod.iter_predict(train):
                break  # the iterator stands after the first batch
            results.append([batch.label[0].asnumpy().tolist() for batch in train])
        found.append(results)
        assert bool(watch.copies()) == (on == "1")
    assert found[0] == found[1]


def test_an_error_of_the_iterator_comes_where_it_would():
    class Failing(Uneven):
        fails, peekable = True, True

        def next(self) -> Any:
            if self.at == 16 and self.fails:
                self.fails = False
                raise OSError("the disk is gone")
            return super().next()

        state_dict, load_state_dict = Uneven.state_dict, Uneven.load_state_dict

    train: Any = Failing()
    batches: list[Any] = []
    with stand_in_gpus(2, Watcher(late)):
        mod = mx.mod.Module(net(), context=mx.gpu(0))
        with pytest.raises(OSError, match="the disk is gone"):
            mod.fit(train, num_epoch=1, batch_end_callback=batches.append)
        assert len(batches) == 1 and train.at == 16  # the second batch's callbacks come after the next one
        batches.clear()
        train.reset()
        mod.fit(train, num_epoch=1)
        train = Reused(3, fails_at=2, prefetchable=True)
        with pytest.raises(OSError, match="the disk is gone"):
            mod.fit(train, num_epoch=1)


def test_a_subclass_that_overrides_what_reads_a_batch_gets_no_copies():
    class Scaled(mx.mod.Module):
        def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
            data_batch.data[0][:] *= 2
            super().forward(data_batch, is_train)

    watch = Watcher()
    with stand_in_gpus(1, watch):
        fitted(Reused(2), mod=Scaled(net(), context=mx.gpu(0)))
    assert not watch.copies()


def test_a_monitor_sees_every_batch(plain, caplog):
    def seen(run: Callable[..., Any]) -> list[str]:
        caplog.clear()
        run(arrays(), monitor=mx.mon.Monitor(1, pattern="data|fc1.*"))
        return [record.getMessage() for record in caplog.records if "Batch:" in record.getMessage()]

    with caplog.at_level("INFO"):
        expected = seen(plain)
        with stand_in_gpus(2, Watcher()):
            assert seen(fitted) == expected and expected


def test_a_loop_of_ones_own_may_change_a_batch_after_prepare(plain):
    def run() -> np.ndarray:
        mod = mx.mod.Module(net(), context=mx.gpu(0))
        train = arrays()
        mod.bind(train.provide_data, train.provide_label)
        mx.random.seed(1)
        mod.init_params(mx.init.Xavier())
        mod.init_optimizer()
        for batch in train:
            mod.prepare(batch)
            batch.data[0] = batch.data[0] * 2
            mod.forward_backward(batch)
            mod.update()
        return values(mod)["fc1_weight"]

    with stand_in_gpus(1, Watcher()):
        device = run()
    with stand_in_gpus(1):
        assert np.array_equal(device, run())


def test_a_score_within_a_callback_leaves_the_fit_alone(plain):
    def scoring(param: Any) -> None:
        assert len(param.locals["self"].score(arrays(), "acc")) == 1

    expected = plain(arrays(), extra=scoring)
    with stand_in_gpus(2, Watcher(late)):
        same(expected, fitted(arrays(), extra=scoring))


@pytest.mark.parametrize("order", ["10", "01"])
def test_a_training_resumes_with_the_same_bits(tmp_path, monkeypatch, order):
    def run(on: str, callback: Any = None, checkpoint: Any = None) -> Any:
        monkeypatch.setenv("DMOD_COPY_AHEAD", on)
        np.random.seed(1)
        return fitted(arrays(shuffle=True), extra=callback, checkpoint=checkpoint)

    with stand_in_gpus(1, Watcher(late)):
        expected = run(order[0])
        with pytest.raises(Stopped):  # a batch after the checkpoint; the next one is copied by then
            run(order[0], stop_after(7), manager(tmp_path))
        found, said = run(order[1], checkpoint=manager(tmp_path))
        same(expected, (found, expected[1]))
    assert 0 < len(said) < len(expected[1]) and said == expected[1][-len(said) :]


@pytest.fixture(autouse=True)
def streams_end() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpu(")]


def test_batches_of_files_are_copied_once_from_pinned_memory(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_text("".join(",".join(f"{x:.5f}" for x in row) + "\n" for row in DATA))
    from_batches: list[bool] = []

    class Noting(Recording):
        def copy_in_ahead(self, target: Any, source: Any, after: Any) -> Any:
            memory = pinned_memory()
            from_batches.append(memory is not None and memory.holds(source))
            return super().copy_in_ahead(target, source, after)

    def run(on: str) -> Any:
        monkeypatch.setenv("DMOD_COPY_AHEAD", on)
        before = set_gpus([Noting()])
        try:
            train = mx.io.CSVIter(data_csv=str(path), data_shape=(6,), batch_size=8)
            mod = mx.mod.Module(net(), context=mx.gpu(0))
            return fitted(train, mod=mod)
        finally:
            set_gpus(before)

    same(run("0"), run("1"))
    assert from_batches == [True, False] * (EPOCHS * (BATCHES - 1))  # labels are zeros, made elsewhere


def test_pinned_buffers_are_used_again_once_nobody_holds_them():
    with stand_in_gpus(1):
        buffers = Buffers((3, 5), np.dtype("float32"), 2)
        plain = [buffers.take().ctypes.data for _ in range(2)]
        assert plain[0] == plain[1] and pinned_memory() is None
        mx.nd.zeros((1,), ctx=mx.gpu(0))  # from now on it is in use
        first = buffers.take()
        memory = pinned_memory()
        view, address = first[1:].reshape(-1), first.ctypes.data
        assert memory is not None and memory.holds(view) and not memory.holds(np.zeros(3))
        del first
        assert buffers.take().ctypes.data != address
        del view
        assert buffers.take().ctypes.data == address
        del buffers
        assert not memory._ends
    assert pinned_memory() is None
