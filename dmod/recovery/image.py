"""The contents of files, put together in memory that is used again: one copy of what training changes.

Fresh memory would cost more than the copy, as the system hands it out page by page. It begins at a page, so
that a disk can take it from there without a copy of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dmod.ndarray.flat import aligned_empty

__all__ = ["BLOCK", "Content", "Image", "Images"]

BLOCK = 4096
"""Bytes: what disks, and the system's pages, are made of."""
_WORTH_A_THREAD = 1 << 20


@dataclass(frozen=True)
class Content:
    """What a file is to have in it.

    Attributes
    ----------
    chunks : list of bytes or memoryview
        One after the other; views of what training goes on to change are read when the image is made.
    seal : callable, optional
        Completes the image, for instance by a checksum, when there is time.
    """

    chunks: Sequence[bytes | memoryview]
    seal: Callable[[memoryview], None] | None = None

    @property
    def nbytes(self) -> int:
        """The size of the file."""
        return sum(map(len, self.chunks))


class Image:
    """The content of one file, in memory that is used again for the next."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._seal: Callable[[memoryview], None] | None = None
        self.nbytes = 0

    def reserve(self, nbytes: int) -> None:
        """Have memory for so many bytes, all of it handed out by the system."""
        size = -(-nbytes // BLOCK) * BLOCK
        if size <= len(self._memory):
            return
        self._memory = np.empty(0, np.uint8)  # so that it need not be there twice
        memory = aligned_empty(size, np.uint8, BLOCK)
        memory.fill(0)
        self._memory = memory

    def fill(self, content: Content) -> Image:
        """Copy a content; the one before is gone."""
        self.nbytes, self._seal = content.nbytes, content.seal
        self.reserve(self.nbytes)
        position = 0
        for chunk in content.chunks:
            if chunk:
                self._memory[position : position + len(chunk)] = np.frombuffer(chunk, np.uint8)
            position += len(chunk)
        self._memory[position : -(-position // BLOCK) * BLOCK] = 0
        return self

    def seal(self) -> None:
        """Complete the content, once."""
        if self._seal is not None:
            self._seal(self.content)
            self._seal = None

    @property
    def content(self) -> memoryview:
        """The bytes of the file."""
        return self._memory[: self.nbytes].data

    @property
    def blocks(self) -> memoryview:
        """The same with zeros up to a whole number of blocks."""
        return self._memory[: -(-self.nbytes // BLOCK) * BLOCK].data


class Images:
    """Memory for the files of a checkpoint; there is one at a time."""

    def __init__(self) -> None:
        self._images: list[Image] = []
        self._preparing: threading.Thread | None = None

    def prepare(self, sizes: Iterable[int]) -> None:
        """Have memory for files of so many bytes soon: that is waited for by `take` alone."""
        wanted = list(sizes)
        self._grow(len(wanted))

        def reserve() -> None:
            for image, nbytes in zip(self._images, wanted, strict=False):
                image.reserve(nbytes)

        if sum(wanted) >= _WORTH_A_THREAD:
            self._preparing = threading.Thread(target=reserve, name="dmod checkpoint memory", daemon=True)
            self._preparing.start()

    def take(self, contents: Mapping[str, Content]) -> dict[str, Image]:
        """Copy contents, by name; those before are gone."""
        if self._preparing is not None:
            self._preparing.join()
            self._preparing = None
        self._grow(len(contents))
        pairs = zip(contents.items(), self._images, strict=False)
        return {name: image.fill(content) for (name, content), image in pairs}

    def _grow(self, count: int) -> None:
        self._images += [Image() for _ in range(count - len(self._images))]
