"""Decoded pictures in memory that all loading processes share, up to a bound."""

from __future__ import annotations

import mmap
from multiprocessing import Lock
from typing import Any

import numpy as np
from dassl.utils import read_image
from PIL import Image

ENTRY = 3  # numbers a picture: where its pixels begin, width, height (0 for one that is not kept)


class DecodedImages:
    """Pictures of a list of files, each decoded by whichever process needs it first.

    Pixels lie in one anonymous mapping that forked workers share, so a picture is in memory once,
    however many workers there are, and no limit on /dev/shm concerns it. Pages that were never
    written cost nothing. A picture that no longer fits is decoded each time.

    A worker that is spawned, not forked (Windows, macOS), cannot inherit the mapping: it keeps
    nothing.
    """

    def __init__(self, count: int, n_bytes: int) -> None:
        """Make room.

        Args:
            count: number of pictures.
            n_bytes: bound on the memory of all pixels, 3 bytes each; 0 keeps no picture.
        """
        self.count, self.n_bytes = count, n_bytes
        self._lock = Lock()
        self._pixels = mmap.mmap(-1, max(n_bytes, 1))
        numbers = mmap.mmap(-1, 8 * (1 + ENTRY * count))
        shared = np.frombuffer(numbers, np.int64)
        self._used, self._entries = shared[:1], shared[1:].reshape(count, ENTRY)

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodedImages, (self.count, 0)

    @property
    def used(self) -> int:
        """Bytes of pixels that are kept."""
        return int(self._used[0])

    def read(self, index: int, path: str) -> Image.Image:
        """The picture of a file in RGB, the `index`-th of the list.

        Raises:
            OSError: a file that is missing or is no picture.
        """
        with self._lock:  # held, so that an entry is never seen before its pixels
            start, width, height = self._entries[index].tolist()
        if width:
            pixels = self._pixels[start : start + 3 * width * height]
            return Image.frombytes("RGB", (width, height), pixels)
        image = read_image(path)
        self._keep(index, image)
        return image

    def _keep(self, index: int, image: Image.Image) -> None:
        pixels = image.tobytes()
        with self._lock:
            start, stop = self.used, self.used + len(pixels)
            if stop > self.n_bytes or self._entries[index, 1]:  # full, or another was faster
                return
            self._pixels[start:stop] = pixels
            self._used[0], self._entries[index] = stop, (start, *image.size)
