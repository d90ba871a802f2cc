"""Train a linear classifier on sparse data in LibSVM's format, in one process or in many.

    python examples/sparse_linear.py
    dmod-launch -n 2 -s 1 -- python examples/sparse_linear.py --kv-store dist_sync

The program makes the data up: lines of some thirty features out of --num-features, whose class a random
linear function decides. Only the weights of the features that a batch has get gradients and updates, and
workers exchange only these. ``--data FILE`` trains on a file of one's own, whose indices begin at 0.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import dmod as mx


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--data", metavar="FILE", help="LibSVM's format, classes 0 and 1; default: made up")
    option("--num-features", type=int, default=2000, help="default: %(default)s")
    option("--num-lines", type=int, default=4000, help="of data that is made up; default: %(default)s")
    option("--kv-store", default="local", help="local, device or dist_sync; default: %(default)s")
    option("--batch-size", type=int, default=100, help="lines per worker and step; default: %(default)s")
    option("--optimizer", default="adagrad", help="sgd, adam, adagrad ...; default: %(default)s")
    option("--lr", type=float, default=0.1, help="learning rate; default: %(default)s")
    option("--num-epochs", type=int, default=5, help="default: %(default)s")
    option("--seed", type=int, default=0, help="default: %(default)s")
    option("--min-accuracy", type=float, help="fail if the accuracy on the data ends below this")
    return parser.parse_args()


def write_data(path: Path, args: argparse.Namespace) -> None:
    """Lines of features that few or many others have, as words in texts."""
    rng = np.random.RandomState(args.seed)
    truth = rng.randn(args.num_features)
    with open(path, "w", encoding="ascii") as file:
        for _ in range(args.num_lines):
            features = np.unique((args.num_features * rng.rand(30) ** 3).astype(int))
            values = rng.rand(len(features)) + 0.1
            pairs = " ".join(f"{i}:{v:.4f}" for i, v in zip(features, values, strict=True))
            file.write(f"{int(values @ truth[features] > 0)} {pairs}\n")


def network(num_features: int) -> mx.sym.Symbol:
    data = mx.sym.Variable("data", stype="csr")
    weight = mx.sym.Variable("weight", shape=(num_features, 2), stype="row_sparse")
    bias = mx.sym.Variable("bias", shape=(2,))
    return mx.sym.SoftmaxOutput(mx.sym.broadcast_add(mx.sym.sparse.dot(data, weight), bias), name="softmax")


def main() -> None:
    args = parse_arguments()
    kv = mx.kv.create(args.kv_store)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(args.data) if args.data else Path(directory) / "data.libsvm"
        if not args.data:
            write_data(path, args)
        train = mx.io.LibSVMIter(
            data_libsvm=str(path),
            data_shape=(args.num_features,),
            batch_size=args.batch_size,
            **mx.io.worker_split(kv),
        )
        module = mx.mod.Module(network(args.num_features))
        module.fit(
            train,
            kvstore=kv,
            optimizer=args.optimizer,
            optimizer_params={"learning_rate": args.lr},
            initializer=mx.init.Zero(),
            num_epoch=args.num_epochs,
            sparse_row_id_fn=lambda batch: {"weight": batch.data[0].indices},
        )
        accuracy = dict(module.score(train, "acc"))["accuracy"]
    print(f"{kv.num_workers} workers: accuracy {accuracy:.3f} on worker {kv.rank}'s lines", flush=True)
    if args.min_accuracy is not None and accuracy < args.min_accuracy:
        raise SystemExit(f"accuracy {accuracy:.3f} is below {args.min_accuracy}")


if __name__ == "__main__":
    main()
