"""The code blocks of MXNet's own documentation of Module, run as they stand with `mxnet` meaning dmod.

`blocks/` holds them, one file per document:

- 000: "Module Interface HowTo" of MXNet's API pages
- 001: the tutorial "Module - Neural network training and inference"
- 002: the overview of the page "Module API"
- 003: a reader's notes on the tutorial; its ``"%f" % score`` of a list, which fails in MXNet too, is left out
- 004: the examples of the API reference, in the notation of the Python 2 prompt
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

BLOCKS = Path(__file__).parent / "blocks"
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Document:
    """The blocks of one document, run one after the other in one namespace."""

    def __init__(self, name: str, **names: Any) -> None:
        self.names = names
        self._name = name
        self._blocks = _FENCED.findall((BLOCKS / f"{name}.md").read_text(encoding="utf-8"))
        self._next = 0

    def run(self, *replacements: tuple[str, str]) -> None:
        """Run the next block; each replacement fills in something that the document leaves open."""
        code = self._without_prompts(self._blocks[self._next])
        for old, new in replacements:
            assert old in code, f"block {self._next} of {self._name} has no {old!r}"
            code = code.replace(old, new)
        exec(compile(code, f"{self._name}.md, block {self._next}", "exec"), self.names)
        self._next += 1

    def assert_all_run(self) -> None:
        assert self._next == len(self._blocks)

    @staticmethod
    def _without_prompts(code: str) -> str:
        code = re.sub(r"^(>>>|\.\.\.) ?", "", code, flags=re.MULTILINE)
        return re.sub(r"^(\s*)print (.+)$", r"\1print(\2)", code, flags=re.MULTILINE)


def write_letters(path: Path, rows: int = 20000) -> None:
    """A file of the format and size of UCI's letter-recognition.data, with classes that can be told apart."""
    rng = np.random.RandomState(1)
    labels = rng.randint(26, size=rows)
    centres = rng.randint(2, 14, size=(26, 16))
    values = np.clip(centres[labels] + rng.randint(-2, 3, size=(rows, 16)), 0, 15)
    with open(path, "w", encoding="ascii") as file:
        for label, row in zip(labels, values, strict=True):
            file.write(f"{chr(ord('A') + label)},{','.join(map(str, row))}\n")
