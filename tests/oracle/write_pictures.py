"""Write tests/fixtures/pictures.rec and boxes.rec with dmod: ``python tests/oracle/write_pictures.py``.

MXNet reads them in make_picture_fixtures.py, which is why they are kept: another OpenCV may encode
differently.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dmod.recordio import IRHeader, MXIndexedRecordIO, pack_img

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def picture(rng: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """Soft shapes with some noise, blue first."""
    coarse = rng.randint(0, 256, (height // 10 + 2, width // 10 + 2, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(smooth + rng.randint(-8, 9, smooth.shape), 0, 255).astype(np.uint8)


def boxes(rng: np.random.RandomState, count: int) -> list[float]:
    """A detection label with `count` objects."""
    label = [2.0, 5.0]
    for kind in range(count):
        (left, right), (top, bottom) = sorted(rng.rand(2)), sorted(rng.rand(2))
        label += [kind, left, top, right, bottom]
    return label


def main() -> None:
    rng = np.random.RandomState(0)
    for name in ("pictures", "boxes"):
        record = MXIndexedRecordIO(str(FIXTURES / f"{name}.idx"), str(FIXTURES / f"{name}.rec"), "w")
        for i in range(8):
            label = float(i) if name == "pictures" else boxes(rng, i % 3 + 1)
            pixels = picture(rng, 40 + i, 60 - 2 * i)
            record.write_idx(i, pack_img(IRHeader(0, label, 100 + i, 0), pixels, 90))
        record.close()


if __name__ == "__main__":
    main()
