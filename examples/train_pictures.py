"""Train a small residual network on pictures in record files, in one process or in many.

    python examples/train_pictures.py
    dmod-launch -n 2 -s 1 -- python examples/train_pictures.py --kv-store dist_sync

The pictures show a disc, a square, a triangle, a ring or stripes, of random colour, size and place. They are
drawn into one directory per class, listed and packed by dmod-im2rec, and read by ImageRecordIter; each worker
reads its part.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from resnet import resnet

import dmod as mx
from dmod import im2rec

CLASSES = ("disc", "ring", "square", "stripes", "triangle")  # in the order of their directories


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--data-dir", help="keep pictures and records here, and use them again; default: none are kept")
    option("--num-pictures", type=int, default=1600, help="a fifth is for validation; default: %(default)s")
    option("--size", type=int, default=32, help="edge of the network's pictures; default: %(default)s")
    option("--layers", type=int, default=8, help="6 n + 2; default: %(default)s")
    option("--kv-store", default="local", help="local, device or dist_sync; default: %(default)s")
    option("--batch-size", type=int, default=32, help="per worker and step; default: %(default)s")
    option("--num-epochs", type=int, default=5, help="default: %(default)s")
    option("--lr", type=float, default=0.1, help="default: %(default)s")
    option("--threads", type=int, default=2, help="that decode pictures; default: %(default)s")
    option("--seed", type=int, default=0, help="of pictures, order, augmentation and network")
    option("--min-accuracy", type=float, default=0.0, help="fail if the validation accuracy stays below")
    return parser.parse_args()


def draw(kind: str, rng: np.random.RandomState, edge: int) -> np.ndarray:
    """A picture of `kind`, edge x edge x 3."""
    picture = np.full((edge, edge, 3), rng.randint(0, 100, 3), np.uint8)
    color = tuple(int(c) for c in rng.randint(130, 256, 3))
    radius = int(rng.randint(edge // 5, edge // 3))
    x, y = (int(v) for v in rng.randint(radius, edge - radius, 2))
    if kind == "disc":
        cv2.circle(picture, (x, y), radius, color, -1)
    elif kind == "ring":
        cv2.circle(picture, (x, y), radius, color, 2)
    elif kind == "square":
        cv2.rectangle(picture, (x - radius, y - radius), (x + radius, y + radius), color, -1)
    elif kind == "stripes":
        picture[y % 6 :: 6], picture[(y + 1) % 6 :: 6] = color, color
    else:
        corners = [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)]
        cv2.fillPoly(picture, [np.array(corners, np.int32)], color)
    return np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)


def make_records(folder: Path, args: argparse.Namespace) -> None:
    """Draw the pictures, the same ones for every worker, and pack them into train and validation records."""
    rng = np.random.RandomState(args.seed)
    for i in range(args.num_pictures):
        kind = CLASSES[i % len(CLASSES)]
        path = folder / "pictures" / kind / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw(kind, rng, args.size * 5 // 4))
    prefix, root = str(folder / "shapes"), str(folder / "pictures")
    for command in (["--list", "--recursive", "--train-ratio", "0.8"], ["--num-thread", str(args.threads)]):
        if im2rec.main([*command, prefix, root]):
            raise SystemExit("dmod-im2rec failed")


def iterators(folder: Path, args: argparse.Namespace, kv: mx.kv.KVStore) -> list[mx.io.ImageRecordIter]:
    """This worker's part of the training pictures, augmented, and all of the validation pictures."""
    common = {
        "data_shape": (3, args.size, args.size),
        "batch_size": args.batch_size,
        "preprocess_threads": args.threads,
        "seed": args.seed,
        "verbose": False,
        **{f"mean_{color}": 128 for color in "rgb"},
        **{f"std_{color}": 64 for color in "rgb"},
    }
    train = mx.io.ImageRecordIter(
        path_imgrec=str(folder / "shapes_train.rec"),
        path_imgidx=str(folder / "shapes_train.idx"),
        num_parts=kv.num_workers,
        part_index=kv.rank,
        shuffle=True,
        rand_crop=True,
        rand_mirror=True,
        brightness=0.2,
        **common,
    )
    return [train, mx.io.ImageRecordIter(path_imgrec=str(folder / "shapes_val.rec"), **common)]


def train(folder: Path, args: argparse.Namespace) -> None:
    kv = mx.kv.create(args.kv_store)
    logging.basicConfig(level=logging.INFO if kv.rank == 0 else logging.WARNING, format="%(message)s")
    mx.random.seed(args.seed)
    if not (folder / "shapes_val.rec").exists():
        make_records(folder, args)
    training, validation = iterators(folder, args, kv)
    module = mx.mod.Module(resnet(mx.sym, layers=args.layers, num_classes=len(CLASSES)))
    start = time.monotonic()
    module.fit(
        training,
        eval_data=validation,
        eval_metric="acc",
        kvstore=kv,
        optimizer="sgd",
        optimizer_params={"learning_rate": args.lr, "momentum": 0.9, "wd": 1e-4},
        initializer=mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2),
        num_epoch=args.num_epochs,
        batch_end_callback=mx.callback.Speedometer(args.batch_size, 20),
    )
    accuracy = dict(module.score(validation, "acc"))["accuracy"]
    if kv.rank == 0:
        seconds = time.monotonic() - start
        print(
            f"Validation accuracy {accuracy:.4f} after {args.num_epochs} epochs in {seconds:.1f} s", end=" "
        )
        print(f"({kv.type}, {kv.num_workers} worker{'s' * (kv.num_workers > 1)})")
    if accuracy < args.min_accuracy:
        raise SystemExit(f"validation accuracy {accuracy:.4f}, expected at least {args.min_accuracy}")


def main() -> None:
    args = parse_arguments()
    if args.data_dir is not None:
        Path(args.data_dir).mkdir(parents=True, exist_ok=True)
        train(Path(args.data_dir), args)
        return
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), args)


if __name__ == "__main__":
    main()
