"""Write tests/fixtures/records.rec and .idx with MXNet 1.9.1, the magic number in every place.

python tests/oracle/make_record_fixtures.py
"""

from __future__ import annotations

from pathlib import Path

import mxnet as mx

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
MAGIC = bytes.fromhex("0a23d7ce")


def payloads() -> list[bytes]:
    """What the file holds; tests/test_recordio.py knows these too."""
    plain = [b"", b"a", b"abcd", bytes(range(256)) * 5]
    cut = [MAGIC, b"abcd" + MAGIC, MAGIC + b"x", MAGIC * 3, b"abcd" + MAGIC + b"efgh" + MAGIC + MAGIC + b"i"]
    uncut = [b"a" + MAGIC, b"ab" + MAGIC + b"cd", MAGIC[:3]]
    return plain + cut + uncut


def main() -> None:
    recordio = mx.recordio
    indexed = recordio.MXIndexedRecordIO(str(FIXTURES / "records.idx"), str(FIXTURES / "records.rec"), "w")
    for key, payload in enumerate(payloads()):
        indexed.write_idx(10 * key, payload)
    for key, label in ((1001, 3.5), (1002, [1.0, -2.0, 0.25])):
        indexed.write_idx(
            key, recordio.pack(recordio.IRHeader(0, label, key, 2**63 + key), b"picture" + MAGIC)
        )
    indexed.close()


if __name__ == "__main__":
    main()
