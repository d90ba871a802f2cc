r"""Train a multilayer perceptron on handwritten digits, in one process or in many.

    python examples/train_digits.py
    dmod-launch -n 2 -s 1 -- python examples/train_digits.py --kv-store dist_sync
    dmod-launch -n 2 -s 1 --max-restarts 3 -- \
        python examples/train_digits.py --kv-store dist_sync --checkpoint run1

The 1797 digits of 8 x 8 pixels come with scikit-learn. ``--data letter-recognition.data`` trains on the
UCI file of 20000 letters instead (https://archive.ics.uci.edu/dataset/59/letter+recognition).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from pathlib import Path

import numpy as np

import dmod as mx


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--data", metavar="FILE", help="a file in the format of UCI's letter-recognition.data")
    option("--network", choices=sorted(NETWORKS), default="mlp", help="default: %(default)s")
    option("--kv-store", default="local", help="local, device or dist_sync; default: %(default)s")
    option("--batch-size", type=int, default=32, help="examples per worker and step; default: %(default)s")
    option("--num-epochs", type=int, default=20, help="default: %(default)s")
    option("--optimizer", default="sgd", help="default: %(default)s")
    option("--lr", type=float, default=0.1, help="learning rate; default: %(default)s")
    option("--lr-factor", type=float, default=0.1, help="what --lr is multiplied by at each --lr-step-epochs")
    option(
        "--lr-step-epochs", default="", metavar="E,E,...", help="epochs at which to reduce the learning rate"
    )
    option("--mom", type=float, default=0.9, help="momentum; default: %(default)s")
    option("--wd", type=float, default=1e-4, help="weight decay; default: %(default)s")
    option(
        "--model-prefix",
        metavar="PREFIX",
        help="save a checkpoint per epoch, and the loss curve, under this name",
    )
    option(
        "--load-epoch",
        type=int,
        metavar="N",
        help="go on from the checkpoint that epoch N left at --model-prefix",
    )
    option(
        "--checkpoint",
        metavar="DIRECTORY",
        help="keep checkpoints of the training there, and go on from the newest one",
    )
    option(
        "--checkpoint-batches",
        type=int,
        metavar="N",
        help="with --checkpoint: take one after every N batches, however little there is to lose; default: "
        "after each epoch, as far as that takes no more than 2 %% of the time",
    )
    option(
        "--disp-batches",
        type=int,
        default=20,
        help="report speed every so many batches; default: %(default)s",
    )
    option(
        "--seed", type=int, default=0, help="of shuffling, initial values and dropout; default: %(default)s"
    )
    option("--min-accuracy", type=float, default=0.0, help="fail if the validation accuracy stays below")
    args = parser.parse_args()
    if args.load_epoch is not None and not args.model_prefix:
        parser.error("--load-epoch needs --model-prefix")
    if args.load_epoch is not None and args.checkpoint:
        parser.error("--load-epoch and --checkpoint: go on from one of them")
    if args.checkpoint_batches is not None and not args.checkpoint:
        parser.error("--checkpoint-batches needs --checkpoint")
    return args


def read_data(path: str | None) -> tuple[np.ndarray, np.ndarray]:
    """All examples, scaled to [0, 1], and their class numbers."""
    if path is None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.data.astype("float32") / 16, digits.target.astype("float32")
    with open(path, encoding="ascii") as file:
        rows = [line.strip().split(",") for line in file if line.strip()]
    data = np.array([row[1:] for row in rows], "float32") / 15
    return data, np.array([ord(row[0]) - ord("A") for row in rows], "float32")


def iterators(args: argparse.Namespace, kv: mx.kv.KVStore) -> tuple[mx.io.NDArrayIter, mx.io.NDArrayIter]:
    """This worker's share of the training data, and the validation data, which every worker sees whole."""
    data, label = read_data(args.data)
    order = np.random.RandomState(args.seed).permutation(len(data))  # the same split on all workers
    split = len(data) * 8 // 10
    mine = order[:split][kv.rank :: kv.num_workers]
    held_out = order[split:]
    train = mx.io.NDArrayIter(data[mine], label[mine], args.batch_size, shuffle=True)
    return train, mx.io.NDArrayIter(data[held_out], label[held_out], args.batch_size)


def mlp(num_classes: int) -> mx.sym.Symbol:
    net = mx.sym.Variable("data")
    for i, num_hidden in enumerate((128, 64), 1):
        net = mx.sym.FullyConnected(net, name=f"fc{i}", num_hidden=num_hidden)
        net = mx.sym.Activation(net, name=f"relu{i}", act_type="relu")
    net = mx.sym.FullyConnected(net, name="fc3", num_hidden=num_classes)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def mlp_bn(num_classes: int) -> mx.sym.Symbol:
    """The same with batch normalisation and dropout."""
    net = mx.sym.Variable("data")
    for i, num_hidden in enumerate((128, 64), 1):
        net = mx.sym.FullyConnected(net, name=f"fc{i}", num_hidden=num_hidden)
        net = mx.sym.BatchNorm(net, name=f"bn{i}", fix_gamma=False)
        net = mx.sym.Activation(net, name=f"relu{i}", act_type="relu")
        net = mx.sym.Dropout(net, name=f"drop{i}", p=0.1)
    net = mx.sym.FullyConnected(net, name="fc3", num_hidden=num_classes)
    return mx.sym.SoftmaxOutput(net, name="softmax")


NETWORKS = {"mlp": mlp, "mlp-bn": mlp_bn}


class Curve:
    """Collects loss and accuracy of each epoch from fit's callbacks; writes them as JSON and as a picture."""

    def __init__(self) -> None:
        self.epochs: dict[int, dict[str, float]] = {}

    def read(self, prefix: str, num_epochs: int) -> None:
        """Take over the epochs of an earlier run that this one goes on from."""
        path = Path(f"{prefix}-curve.json")
        earlier = json.loads(path.read_text()) if path.exists() else {}
        self.epochs = {int(epoch): row for epoch, row in earlier.items() if int(epoch) < num_epochs}

    def _record(self, kind: str, param: mx.model.BatchEndParam) -> None:
        values = {f"{kind}-{name}": float(value) for name, value in param.eval_metric.get_global_name_value()}
        self.epochs.setdefault(param.epoch, {}).update(values)

    def __call__(self, param: mx.model.BatchEndParam) -> None:
        self._record("train", param)  # the last batch of an epoch leaves the epoch's value

    def on_validation(self, param: mx.model.BatchEndParam) -> None:
        self._record("validation", param)

    def state_dict(self) -> dict[int, dict[str, float]]:
        """For checkpoints of the training, as is `load_state_dict`."""
        return {epoch: dict(row) for epoch, row in self.epochs.items()}

    def load_state_dict(self, state: dict[int, dict[str, float]]) -> None:
        self.epochs = state

    def write(self, prefix: str) -> list[Path]:
        path = Path(f"{prefix}-curve.json")
        path.write_text(json.dumps(self.epochs, indent=1) + "\n")
        try:
            import matplotlib
        except ImportError:
            return [path]
        matplotlib.use("Agg")
        from matplotlib import pyplot, ticker

        figure, axes = pyplot.subplots(figsize=(6, 3.6))
        for name in ("train-cross-entropy", "validation-cross-entropy"):
            points = {epoch + 1: row[name] for epoch, row in self.epochs.items() if name in row}
            axes.plot(
                list(points), list(points.values()), marker=".", label=name.replace("-cross-entropy", "")
            )
        axes.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.legend()
        figure.tight_layout()
        figure.savefig(path.with_suffix(".png"), dpi=120)
        return [path, path.with_suffix(".png")]


def optimizer_params(args: argparse.Namespace, batches_per_epoch: int) -> dict[str, object]:
    params: dict[str, object] = {"learning_rate": args.lr, "wd": args.wd}
    if args.optimizer == "sgd":
        params["momentum"] = args.mom
    steps = [int(epoch) * batches_per_epoch for epoch in args.lr_step_epochs.split(",") if epoch]
    if steps:
        params["lr_scheduler"] = mx.lr_scheduler.MultiFactorScheduler(steps, args.lr_factor)
    return params


def checkpoints(args: argparse.Namespace) -> mx.CheckpointManager | str | None:
    """What `fit` takes."""
    if args.checkpoint_batches is None:
        return args.checkpoint
    return mx.CheckpointManager(args.checkpoint, every_n_batches=args.checkpoint_batches, max_overhead=None)


def digest(module: mx.mod.Module) -> str:
    """What tells parameters apart, to the last bit."""
    arg_params, aux_params = module.get_params()
    found = hashlib.sha256()
    for _, value in sorted({**arg_params, **aux_params}.items()):
        found.update(value.asnumpy().tobytes())
    return found.hexdigest()[:16]


def main() -> None:
    args = parse_arguments()
    kv = mx.kv.create(args.kv_store)
    logging.basicConfig(level=logging.INFO if kv.rank == 0 else logging.WARNING, format="%(message)s")
    mx.random.seed(args.seed)
    np.random.seed(args.seed + kv.rank)
    train, validation = iterators(args, kv)
    print(f"Worker {kv.rank} of {kv.num_workers} trains on {train.num_data} examples", flush=True)
    num_classes = 10 if args.data is None else 26

    arg_params = aux_params = None
    net = NETWORKS[args.network](num_classes)
    if args.load_epoch is not None:
        net, arg_params, aux_params = mx.model.load_checkpoint(args.model_prefix, args.load_epoch)
    saves = args.model_prefix is not None and kv.rank == 0
    if saves:
        Path(args.model_prefix).parent.mkdir(parents=True, exist_ok=True)

    curve = Curve()
    if args.load_epoch is not None:
        curve.read(args.model_prefix, args.load_epoch)
    module = mx.mod.Module(net)
    start = time.monotonic()
    module.fit(
        train,
        eval_data=validation,
        eval_metric=["acc", "ce"],
        kvstore=kv,
        optimizer=args.optimizer,
        optimizer_params=optimizer_params(args, -(-train.num_data // args.batch_size)),
        initializer=mx.init.Xavier(magnitude=2.0),
        arg_params=arg_params,
        aux_params=aux_params,
        begin_epoch=args.load_epoch or 0,
        num_epoch=args.num_epochs,
        batch_end_callback=[mx.callback.Speedometer(args.batch_size, args.disp_batches), curve],
        epoch_end_callback=mx.callback.do_checkpoint(args.model_prefix) if saves else None,
        eval_end_callback=curve.on_validation,
        checkpoint=checkpoints(args),
    )
    seconds = time.monotonic() - start
    predicted = module.predict(validation).asnumpy().argmax(axis=1)  # without the last batch's padding
    accuracy = float((predicted == validation.label[0][1].asnumpy()).mean())
    if kv.rank == 0:
        print(
            f"\nValidation accuracy {accuracy:.4f} after {args.num_epochs} epochs in {seconds:.2f} s", end=" "
        )
        print(f"({kv.type}, {kv.num_workers} worker{'s' * (kv.num_workers > 1)})")
        print(f"Digest of the parameters: {digest(module)}")
    if saves:
        print(
            f"Model:      {args.model_prefix}-symbol.json, {args.model_prefix}-{args.num_epochs:04d}.params"
        )
        print(f"Loss curve: {', '.join(map(str, curve.write(args.model_prefix)))}")
    if accuracy < args.min_accuracy:
        raise SystemExit(f"validation accuracy {accuracy:.4f}, expected at least {args.min_accuracy}")


if __name__ == "__main__":
    main()
