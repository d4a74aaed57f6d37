"""How many clients each worker has, in memory that all of them see."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import BinaryIO

_CELL = struct.calcsize("Q")


class Board:
    """One number a worker, written by it and read by the others before they accept a connection.

    `file` is the memory's descriptor, which workers inherit.  A number is read or written as a whole, being
    an aligned machine word; what another worker reads may be a moment old, which costs a client more or less.
    """

    def __init__(self, file: BinaryIO, workers: int) -> None:
        self.file = file
        self._cells = memoryview(mmap.mmap(file.fileno(), workers * _CELL)).cast("Q")

    @classmethod
    def new(cls, workers: int) -> Board:
        """A board on which nobody has written yet."""
        file = _memory()
        file.truncate(workers * _CELL)
        return cls(file, workers)

    def write(self, worker: int, load: int) -> None:
        """Worker `worker` (from 0) has `load` clients."""
        self._cells[worker] = load + 1  # 0: no such worker at present

    def wipe(self, worker: int) -> None:
        """The worker is gone."""
        self._cells[worker] = 0

    def others_first(self, worker: int, load: int) -> bool:
        """Writes as `write`, and tells whether another worker has fewer clients."""
        self._cells[worker] = load + 1
        return any(0 < other <= load for other in self._cells)


def _memory() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("pgsluice", os.MFD_CLOEXEC), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
