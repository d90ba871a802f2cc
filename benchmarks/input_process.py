"""One system's input pipeline for benchmarks/input.py: prints as JSON how fast it is.

Runs under the Python of the system that it measures, so it imports nothing else of this directory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import sys
import time
from typing import Any

BATCH, EDGE, CROP = 64, 256, 224
MEAN, STD = (123.68, 116.78, 103.94), (58.4, 57.1, 57.4)
EPOCHS = 3
COLUMNS, WIDTH, TEXT_BATCH, TEXT_EPOCHS = 20, 1000, 500, 9


def record_iterator(io: Any, path: str) -> Any:
    """dmod's or MXNet's ImageRecordIter."""
    return io.ImageRecordIter(
        path_imgrec=path,
        data_shape=(3, CROP, CROP),
        batch_size=BATCH,
        resize=EDGE,
        rand_crop=True,
        rand_mirror=True,
        preprocess_threads=1,
        verbose=False,
        **{f"mean_{color}": value for color, value in zip("rgb", MEAN)},  # noqa: B905  (older Pythons)
        **{f"std_{color}": value for color, value in zip("rgb", STD)},  # noqa: B905
    )


def decoder() -> Any:
    """A function from JPEG bytes to (height, width, 3) RGB with the shorter edge scaled."""
    try:
        import cv2
        import numpy as np
    except ImportError:
        try:
            from io import BytesIO

            from PIL import Image
        except ImportError:
            print("no OpenCV and no Pillow in this environment: nothing to decode with", file=sys.stderr)
            sys.exit(3)
        import numpy as np

        def with_pillow(encoded: bytes) -> Any:
            picture = Image.open(BytesIO(encoded)).convert("RGB")
            scale = EDGE / min(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))

        return with_pillow
    cv2.setNumThreads(0)

    def with_opencv(encoded: bytes) -> Any:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        height, width = pixels.shape[:2]
        size = (width * EDGE // height, EDGE) if width > height else (EDGE, height * EDGE // width)
        return cv2.cvtColor(cv2.resize(pixels, size), cv2.COLOR_BGR2RGB)

    return with_opencv


def torch_loader(path: str, workers: int) -> Any:
    """A DataLoader over the same records, as one writes it by hand."""
    import torch

    decode = decoder()
    with open(os.path.splitext(path)[0] + ".idx", encoding="ascii") as index:
        offsets = [int(line.split("\t")[1]) for line in index]
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    class Records(torch.utils.data.Dataset):
        file: Any = None

        def __len__(self) -> int:
            return len(offsets)

        def __getitem__(self, i: int) -> Any:
            if self.file is None:
                self.file = open(path, "rb")  # noqa: SIM115  (as long as the process lives)
            self.file.seek(offsets[i])
            (length,) = struct.unpack("<4xI", self.file.read(8))
            record = self.file.read(length)
            (label,) = struct.unpack_from("<f", record, 4)
            pixels = decode(record[24:])
            top = random.randint(0, pixels.shape[0] - CROP)
            left = random.randint(0, pixels.shape[1] - CROP)
            picture = torch.from_numpy(pixels)[top : top + CROP, left : left + CROP].permute(2, 0, 1).float()
            if random.random() < 0.5:
                picture = picture.flip(2)
            return picture.sub_(mean).div_(std).contiguous(), label

    torch.set_num_threads(1)
    return torch.utils.data.DataLoader(Records(), BATCH, num_workers=workers, persistent_workers=workers > 0)


def cpu_s() -> float:
    """Seconds of CPU that this process and its children, while they live, have used."""
    total = sum(os.times()[:2])
    for child in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{child}/children", encoding="ascii") as file:
            for pid in file.read().split():
                with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
                    fields = stat.read().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def text_iterator(io: Any, path: str) -> Any:
    """dmod's or MXNet's CSVIter or LibSVMIter, by the name of the file."""
    if path.endswith(".csv"):
        return io.CSVIter(data_csv=path, data_shape=(COLUMNS,), batch_size=TEXT_BATCH)
    return io.LibSVMIter(data_libsvm=path, data_shape=(WIDTH,), batch_size=TEXT_BATCH)


def time_text(io: Any, path: str) -> None:
    """Print the milliseconds of an epoch over a text file: the median of some, after one."""
    iterator, times = text_iterator(io, path), []
    for _ in range(TEXT_EPOCHS + 1):
        iterator.reset()
        clock = time.perf_counter()
        for batch in iterator:
            last = batch
        last.label[0].asnumpy()  # MXNet may still be at it
        times.append(time.perf_counter() - clock)
    print(json.dumps({"ms": 1e3 * sorted(times[1:])[TEXT_EPOCHS // 2]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=("dmod", "mxnet", "torch"))
    parser.add_argument("--records", required=True, help="a record file, or one of text")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    if args.records.endswith((".csv", ".libsvm")):
        time_text(__import__(args.system).io, args.records)
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if args.system == "torch":
        loader = torch_loader(args.records, args.workers)
        reset = None
    else:
        if args.system == "dmod":
            import dmod as mx
        else:
            import mxnet as mx
        loader = record_iterator(mx.io, args.records)
        reset = loader.reset
    for _ in loader:  # the first epoch compiles, and fills the disk's cache
        pass
    count, cpu, clock = 0, cpu_s(), time.perf_counter()
    for _ in range(EPOCHS):
        if reset is not None:
            reset()
        for batch in loader:
            if args.system == "mxnet":
                batch.data[0].wait_to_read()
            count += BATCH
    seconds, used = time.perf_counter() - clock, cpu_s() - cpu
    print(json.dumps({"per_cpu_s": count / used, "per_s": count / seconds}))


if __name__ == "__main__":
    main()
