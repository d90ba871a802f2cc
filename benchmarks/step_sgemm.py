"""What benchmarks/step_time.py measures the limit with: a product of 1024 x 1024 matrices by numpy's BLAS."""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def main() -> None:
    rng = np.random.default_rng(0)
    left, right = (rng.random((1024, 1024), dtype=np.float32) for _ in range(2))
    out = np.empty_like(left)
    np.dot(left, right, out=out)
    print("{}", flush=True)
    while sys.stdin.readline():
        np.dot(left, right, out=out)
        times = []
        for _ in range(9):
            start = time.perf_counter()
            np.dot(left, right, out=out)
            times.append(time.perf_counter() - start)
        print(json.dumps({"ms": 1e3 * sorted(times)[len(times) // 2]}), flush=True)


if __name__ == "__main__":
    main()
