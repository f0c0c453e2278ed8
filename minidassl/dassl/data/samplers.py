"""Samplers: the order in which images are visited, with the random draws of Dassl.

The domain and class samplers draw from Python's (and, to fill up a small class, NumPy's) global
generator, and once at construction to estimate their length. That depends on the draws, so each
pass sets it anew: a loop that trusts an estimate never sees its last batch.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from dassl.utils.registry import check_availability
from torch.utils.data import RandomSampler, Sampler, SequentialSampler


def _indices_by(data_source: Sequence, attribute: str) -> dict[int, list[int]]:
    groups = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, attribute)].append(index)
    return dict(groups)


class _DomainSampler(Sampler):
    """Equal numbers from each of n_domain domains per batch, until a domain of it runs short."""

    def __init__(self, data_source: Sequence, batch_size: int, n_domain: int | None = None) -> None:
        self.indices = _indices_by(data_source, "domain")
        self.domains = list(self.indices)
        self.n_domain = n_domain if n_domain and n_domain > 0 else len(self.domains)
        if self.n_domain > len(self.domains):
            raise ValueError(
                f"n_domain must be at most {len(self.domains)}, the number of domains in the "
                f"data, got {self.n_domain}"
            )
        if batch_size % self.n_domain:
            raise ValueError(
                f"batch_size must be a multiple of the {self.n_domain} domains per batch, "
                f"got {batch_size}"
            )
        self.per_domain = batch_size // self.n_domain
        smallest = min(self.domains, key=lambda domain: len(self.indices[domain]))
        if len(self.indices[smallest]) < self.per_domain:
            raise ValueError(
                f"a batch takes {self.per_domain} images per domain, but domain {smallest} has "
                f"{len(self.indices[smallest])}"
            )
        iter(self)  # sets the length

    def _next_domains(self) -> list[int]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        remaining = {domain: list(indices) for domain, indices in self.indices.items()}
        order: list[int] = []
        while min(map(len, remaining.values())) >= self.per_domain:
            for domain in self._next_domains():
                drawn = random.sample(remaining[domain], self.per_domain)
                order.extend(drawn)
                gone = set(drawn)
                remaining[domain] = [i for i in remaining[domain] if i not in gone]
        self.length = len(order)
        return iter(order)

    def __len__(self) -> int:
        return self.length


class RandomDomainSampler(_DomainSampler):
    """Each batch holds batch_size / n_domain images from each of n_domain random domains."""

    def _next_domains(self) -> list[int]:
        return random.sample(self.domains, self.n_domain)


class SeqDomainSampler(_DomainSampler):
    """Each batch holds equally many random images from every domain, domains in order."""

    def _next_domains(self) -> list[int]:
        return sorted(self.domains)


class RandomClassSampler(Sampler):
    """Each batch holds n_ins images from each of batch_size // n_ins random classes."""

    def __init__(self, data_source: Sequence, batch_size: int, n_ins: int) -> None:
        if batch_size < n_ins:
            raise ValueError(f"batch_size={batch_size} must be no less than n_ins={n_ins}")
        self.indices = _indices_by(data_source, "label")
        self.n_ins = n_ins
        self.classes_per_batch = batch_size // n_ins
        if len(self.indices) < self.classes_per_batch:
            raise ValueError(
                f"a batch takes {self.classes_per_batch} classes (batch_size {batch_size}, "
                f"n_ins {n_ins}), but the data has {len(self.indices)}"
            )
        iter(self)  # sets the length

    def _chunks(self, indices: list[int]) -> list[list[int]]:
        """Shuffle one class and cut it into groups of n_ins; a remainder is left out."""
        shuffled: Any = list(indices)
        if len(shuffled) < self.n_ins:
            shuffled = np.random.choice(shuffled, size=self.n_ins, replace=True)
        random.shuffle(shuffled)
        shuffled = [int(index) for index in shuffled]
        whole = len(shuffled) - len(shuffled) % self.n_ins
        return [shuffled[start : start + self.n_ins] for start in range(0, whole, self.n_ins)]

    def __iter__(self) -> Iterator[int]:
        chunks = {label: self._chunks(indices) for label, indices in self.indices.items()}
        labels = list(chunks)
        order: list[int] = []
        while len(labels) >= self.classes_per_batch:
            for label in random.sample(labels, self.classes_per_batch):
                order.extend(chunks[label].pop(0))
                if not chunks[label]:
                    labels.remove(label)
        self.length = len(order)
        return iter(order)

    def __len__(self) -> int:
        return self.length


def build_sampler(
    sampler_type: str,
    cfg: Any = None,  # noqa: ARG001 (Dassl's signature)
    data_source: Sequence = (),
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler:
    """Build one of the five samplers by name; raise ValueError for an unknown one."""
    samplers = {
        "RandomSampler": lambda: RandomSampler(data_source),
        "SequentialSampler": lambda: SequentialSampler(data_source),
        "RandomDomainSampler": lambda: RandomDomainSampler(data_source, batch_size, n_domain),
        "SeqDomainSampler": lambda: SeqDomainSampler(data_source, batch_size),
        "RandomClassSampler": lambda: RandomClassSampler(data_source, batch_size, n_ins),
    }
    check_availability(sampler_type, list(samplers), "sampler")
    return samplers[sampler_type]()
