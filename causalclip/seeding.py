"""Seeds derived from a key, so that draws do not depend on their order."""

from __future__ import annotations

import hashlib


def sample_seed(key: str, seed: int) -> int:
    """Return one sample's seed: a stable hash of its key (such as its path) and the run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8], "big")
