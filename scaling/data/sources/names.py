"""Many names in little memory: one buffer of bytes and offsets in place of a million Python strings."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Names(Sequence[str]):
    """Names as bytes: number i is buffer[offsets[i]:offsets[i + 1]]; `buffer` uint8 [total], `offsets` int64 [n + 1].

    They are encoded as file names are, so that one which is no UTF-8 survives.
    """

    buffer: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str | bytes]) -> Names:
        """The names in the order given."""
        buffer, offsets = bytearray(), array("q", [0])
        for text in texts:
            buffer += os.fsencode(text)
            offsets.append(len(buffer))
        return cls(np.frombuffer(bytes(buffer), np.uint8), np.array(offsets, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return os.fsdecode(self.raw(index))

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, self.raws())

    def raws(self) -> Iterator[bytes]:
        """The bytes of all names, faster than one by one."""
        content = self.buffer.tobytes()
        return (content[begin:end] for begin, end in pairwise(self.offsets.tolist()))

    def raw(self, index: int) -> bytes:
        """The bytes of a name. Raises IndexError past the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        index %= len(self)
        return self.buffer[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def take(self, indices: NDArray[np.int64]) -> Names:
        """The names at these indices, in their order."""
        content, offsets = self.buffer.tobytes(), self.offsets
        ranges = zip(offsets[:-1][indices].tolist(), offsets[1:][indices].tolist(), strict=True)
        return Names.of(content[begin:end] for begin, end in ranges)

    def order(self) -> NDArray[np.int64]:
        """Indices [n] that sort the names by their bytes; equal names keep their order."""
        raws = list(self.raws())
        return np.array(sorted(range(len(raws)), key=raws.__getitem__), np.int64)

    def repeated(self) -> str | None:
        """A name that occurs twice, the first in sorted order; None if all differ."""
        ordered = sorted(self.raws())
        return next((os.fsdecode(name) for name, following in pairwise(ordered) if name == following), None)
