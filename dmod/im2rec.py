"""``dmod-im2rec`` (or ``python -m dmod.im2rec``): pictures in a directory to record files.

    dmod-im2rec --list --recursive --train-ratio 0.9 data/flowers photos/
    dmod-im2rec --resize 256 --num-thread 4 data/flowers photos/

The first writes ``data/flowers_train.lst`` and ``data/flowers_val.lst``: number, label and path of each
picture. The second makes a ``.rec`` and an ``.idx`` file of every list whose name begins with the prefix.
Options and files are those of MXNet's im2rec. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmod.atomic_file import write_atomic
from dmod.base import FormatError, InvalidArgument, MXNetError
from dmod.recordio import IRHeader, opencv, pack, pack_img
from dmod.recordio.framing import framed

__all__ = [
    "Picture",
    "Recipe",
    "find_pictures",
    "main",
    "read_list",
    "split_lists",
    "write_list",
    "write_records",
]

EXTENSIONS = (".jpeg", ".jpg", ".png")
_SHUFFLE_SEED = 100  # the same list from the same directory, on every machine


@dataclass(frozen=True)
class Picture:
    """A line of a list: the number, the labels, and the path below the root."""

    number: int
    labels: tuple[float, ...]
    path: str


@dataclass(frozen=True)
class Recipe:
    """How pictures are stored.

    Attributes
    ----------
    pass_through : bool
        The files' bytes as they are.
    resize : int
        Pixels of the shorter edge; 0 for as it is.
    center_crop : bool
        Cut to a square in the middle.
    quality : int
        Of JPEG 1 to 100, of PNG 1 to 9.
    encoding : {'.jpg', '.png'}
    color : int
        1 for colour, 0 for grey, -1 for as it is, alpha included.
    pack_label : bool
        All labels of a line, not just the first.
    """

    pass_through: bool = False
    resize: int = 0
    center_crop: bool = False
    quality: int = 95
    encoding: str = ".jpg"
    color: int = 1
    pack_label: bool = False


# ---- lists


def find_pictures(
    root: str | Path, recursive: bool = False, extensions: Iterable[str] = EXTENSIONS
) -> tuple[list[Picture], dict[str, int]]:
    """The pictures below `root`, in the order of their paths.

    With `recursive`, each directory that holds pictures is a class, numbered in the order of paths; else all
    are of class 0.

    Returns
    -------
    pictures : list of Picture
    classes : dict
        Directory to number.
    """
    top = Path(root)
    if not top.is_dir():
        raise InvalidArgument(f"im2rec: {top} is no directory")
    wanted = {extension.lower() for extension in extensions}
    found = sorted(top.rglob("*") if recursive else top.iterdir())
    paths = [p.relative_to(top) for p in found if p.suffix.lower() in wanted and p.is_file()]
    classes: dict[str, int] = {}
    pictures = []
    for number, path in enumerate(paths):
        label = classes.setdefault(str(path.parent), len(classes)) if recursive else 0
        pictures.append(Picture(number, (float(label),), path.as_posix()))
    return pictures, classes


def split_lists(
    pictures: Sequence[Picture], chunks: int = 1, train_ratio: float = 1.0, test_ratio: float = 0.0
) -> dict[str, list[Picture]]:
    """What to append to the prefix, such as ``_train``, to the pictures of that list."""
    if chunks < 1 or not 0 <= train_ratio <= 1 or not 0 <= test_ratio <= 1 or train_ratio + test_ratio > 1:
        raise InvalidArgument(
            f"im2rec: chunks={chunks}, train_ratio={train_ratio}, test_ratio={test_ratio}: expected at "
            "least 1 chunk "
            "and ratios from 0 to 1 that add up to no more than 1"
        )
    lists = {}
    size = -(-len(pictures) // chunks)
    for i in range(chunks):
        chunk = list(pictures[i * size : (i + 1) * size])
        suffix = f"_{i}" if chunks > 1 else ""
        if train_ratio == 1:
            lists[suffix] = chunk
            continue
        test, train = int(len(chunk) * test_ratio), int(len(chunk) * train_ratio)
        if test_ratio:
            lists[f"{suffix}_test"] = chunk[:test]
        lists[f"{suffix}_train"] = chunk[test : test + train]
        if train_ratio + test_ratio < 1:
            lists[f"{suffix}_val"] = chunk[test + train :]
    return lists


def write_list(path: str | Path, pictures: Iterable[Picture]) -> None:
    """Write a .lst file: number, labels and path of a picture per line, with tabs between."""
    write_atomic(str(path), (_line(p).encode("utf-8", "surrogateescape") for p in pictures))


def _line(picture: Picture) -> str:
    labels = "".join(f"{label:f}\t" for label in picture.labels)
    return f"{picture.number}\t{labels}{picture.path}\n"


def read_list(path: str | Path) -> list[Picture]:
    """The pictures of a .lst file.

    Raises
    ------
    FormatError
        A line has less than three fields, or no numbers in them; the message has file and line.
    """
    pictures = []
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split("\t")
            if fields == [""]:
                continue
            try:
                if len(fields) < 3:
                    raise ValueError
                labels = tuple(float(field) for field in fields[1:-1])
                pictures.append(Picture(int(fields[0]), labels, fields[-1]))
            except ValueError:
                raise FormatError(
                    f"{path}, line {number}: expected a number, labels and a path with tabs between, "
                    f"got {line.rstrip()[:80]!r}"
                ) from None
    return pictures


# ---- records


def write_records(
    list_path: str | Path, root: str | Path, recipe: Recipe, threads: int = 1
) -> tuple[int, list[str]]:
    """Make the record file and the index of a list, beside it.

    Parameters
    ----------
    list_path : path
        ``name.lst``; ``name.rec`` and ``name.idx`` are made.
    root : path
        Where the list's paths begin.
    recipe : Recipe
    threads : int

    Returns
    -------
    count : int
        How many records were written.
    skipped : list of str
        What could not be read, and why.
    """
    pictures = read_list(list_path)
    skipped: list[str] = []
    index: list[str] = []

    def chunks() -> Iterator[bytes]:
        position = 0
        for picture, payload in _encoded(pictures, Path(root), recipe, threads):
            if isinstance(payload, MXNetError):
                skipped.append(str(payload))
                continue
            index.append(f"{picture.number}\t{position}\n")
            for chunk in framed(payload):
                position += len(chunk)
                yield chunk

    stem = Path(list_path).with_suffix("")
    write_atomic(f"{stem}.rec", chunks())
    write_atomic(f"{stem}.idx", [line.encode() for line in index])
    return len(index), skipped


def _encoded(
    pictures: Sequence[Picture], root: Path, recipe: Recipe, threads: int
) -> Iterator[tuple[Picture, bytes | MXNetError]]:
    """Each picture with its payload, in order; a bounded number is in work."""
    waiting: deque[tuple[Picture, Future[bytes | MXNetError]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for picture in pictures:
            waiting.append((picture, pool.submit(_payload, picture, root, recipe)))
            if len(waiting) > 4 * threads:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _payload(picture: Picture, root: Path, recipe: Recipe) -> bytes | MXNetError:
    """The payload of a picture's record; the error, if it cannot be read."""
    labels = picture.labels
    label = np.array(labels, np.float32) if recipe.pack_label and len(labels) > 1 else labels[0]
    header = IRHeader(0, label, picture.number, 0)
    path = root / picture.path
    try:
        encoded = path.read_bytes()
    except OSError as error:
        return MXNetError(f"{path}: {error.strerror}")
    if recipe.pass_through:
        return pack(header, encoded)
    cv2 = opencv()
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), recipe.color) if encoded else None
    if pixels is None:
        return FormatError(f"{path}: {len(encoded)} bytes that are no picture")
    return pack_img(header, _shaped(pixels, recipe), recipe.quality, recipe.encoding)


def _shaped(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    height, width = pixels.shape[:2]
    if recipe.center_crop:
        edge = min(height, width)
        top, left = (height - edge) // 2, (width - edge) // 2
        pixels = pixels[top : top + edge, left : left + edge]
        height = width = edge
    if recipe.resize > 0:
        edge = recipe.resize
        size = (edge, height * edge // width) if height > width else (width * edge // height, edge)
        pixels = opencv().resize(pixels, size)
    return np.ascontiguousarray(pixels)


# ---- the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = _parser().parse_args(arguments)
    try:
        return _make_lists(args) if args.list else _make_records(args)
    except (MXNetError, OSError) as error:
        print(f"dmod-im2rec: {error}", file=sys.stderr)
        return 1


def _make_lists(args: argparse.Namespace) -> int:
    pictures, classes = find_pictures(args.root, args.recursive, args.exts)
    if not pictures:
        raise InvalidArgument(
            f"no pictures ({', '.join(args.exts)}) in {args.root}"
            + ("" if args.recursive else "; --recursive looks into its directories")
        )
    for directory, label in classes.items():
        print(directory, label)
    if args.shuffle:
        random.Random(_SHUFFLE_SEED).shuffle(pictures)
    for suffix, chosen in split_lists(pictures, args.chunks, args.train_ratio, args.test_ratio).items():
        path = f"{args.prefix}{suffix}.lst"
        write_list(path, chosen)
        print(f"{path}: {len(chosen)} pictures")
    return 0


def _make_records(args: argparse.Namespace) -> int:
    prefix = Path(args.prefix)
    if prefix.is_file():
        lists = [prefix]
    else:
        lists = sorted(prefix.parent.glob(f"{prefix.name}*.lst"))
    if not lists:
        raise InvalidArgument(f"no list {args.prefix}*.lst; make one with --list")
    recipe = Recipe(
        pass_through=args.pass_through,
        resize=args.resize,
        center_crop=args.center_crop,
        quality=args.quality,
        encoding=args.encoding,
        color=args.color,
        pack_label=args.pack_label,
    )
    status = 0
    for path in lists:
        count, skipped = write_records(path, args.root, recipe, args.num_thread)
        for reason in skipped:
            print(f"skipped: {reason}", file=sys.stderr)
        print(f"{path.with_suffix('.rec')}: {count} records, {len(skipped)} skipped")
        status |= int(count == 0)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dmod-im2rec", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("prefix", help="what the names of the .lst, .rec and .idx files begin with; or a .lst file")
    option("root", help="the directory of the pictures")
    lists = parser.add_argument_group("making lists")
    option = lists.add_argument
    option("--list", action="store_true", help="make lists, not records")
    option("--exts", nargs="+", default=list(EXTENSIONS), help="the files' endings; default: %(default)s")
    option("--chunks", type=int, default=1, help="how many lists to make; default: %(default)s")
    option("--train-ratio", type=float, default=1.0, help="share for training; default: %(default)s")
    option("--test-ratio", type=float, default=0.0, help="share for testing; default: %(default)s")
    option("--recursive", action="store_true", help="look into directories, and give each a label")
    option("--shuffle", action=argparse.BooleanOptionalAction, default=True, help="mix the list")
    records = parser.add_argument_group("making records")
    option = records.add_argument
    option("--pass-through", action="store_true", help="store the files as they are")
    option("--resize", type=int, default=0, help="scale the shorter edge to so many pixels")
    option("--center-crop", action="store_true", help="cut to a square in the middle")
    option("--quality", type=int, default=95, help="JPEG 1 to 100, PNG 1 to 9; default: %(default)s")
    option("--num-thread", type=int, default=1, help="threads; default: %(default)s")
    option("--color", type=int, default=1, choices=(-1, 0, 1), help="1 colour, 0 grey, -1 as the file is")
    option("--encoding", default=".jpg", choices=(".jpg", ".png"), help="default: %(default)s")
    option("--pack-label", action="store_true", help="store all labels of a line, not just the first")
    return parser


if __name__ == "__main__":
    sys.exit(main())
