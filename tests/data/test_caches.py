"""causalclip/files/caches.py: derived files are whole, lie where one may write, are made once."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
from pathlib import Path

import pytest
import replicas
from replicas import names

from causalclip.files import atomic, caches


def deny_writing_below(root, monkeypatch, error):
    unfinished = atomic.unfinished

    def denied(target):
        if target.is_relative_to(root):
            raise OSError(error, os.strerror(error), str(target))
        return unfinished(target)

    monkeypatch.setattr(atomic, "unfinished", denied)


def test_a_read_only_root_keeps_its_few_shot_sets_in_the_cache(load, small, cache, monkeypatch):
    deny_writing_below(small, monkeypatch, caches.errno.EROFS)
    drawn = load("Caltech101", small, NUM_SHOTS=2)
    (stored,) = cache.rglob("*.json")
    assert stored.name == "causalclip_shot_2-seed_1.json"
    assert names(load("Caltech101", small, NUM_SHOTS=2).train_x) == names(drawn.train_x)


def test_a_full_disk_is_not_taken_for_a_read_only_one(load, small, monkeypatch):
    deny_writing_below(small, monkeypatch, caches.errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        load("Caltech101", small, NUM_SHOTS=2)


def test_a_cache_that_cannot_be_written_either_says_what_to_set(load, small, cache, monkeypatch):
    deny_writing_below(small.parents[1], monkeypatch, caches.errno.EACCES)
    deny_writing_below(Path("/"), monkeypatch, caches.errno.EACCES)
    with pytest.raises(PermissionError, match="set CAUSALCLIP_CACHE"):
        load("Caltech101", small, NUM_SHOTS=2)


def test_of_two_that_write_a_split_the_first_wins(tmp_path):
    for content in ([1], [2]):
        caches.store_json(tmp_path / "split.json", content, keep_existing=True)
    assert caches.load_json(tmp_path / "split.json") == [1]


def test_two_processes_that_make_a_split_at_once_end_with_the_same(load, tmp_path):
    replicas.dtd(tmp_path)
    fork = multiprocessing.get_context("fork")
    barrier, found = fork.Barrier(2), fork.Queue()

    def run(seed):
        random.seed(seed)
        barrier.wait()
        dataset = load("DescribableTextures", tmp_path, seed=seed, NUM_SHOTS=2)
        found.put((names(dataset.test), len(dataset.train_x)))

    processes = [fork.Process(target=run, args=(seed,)) for seed in (1, 2)]
    for process in processes:
        process.start()
    first, second = (found.get(timeout=600) for _ in processes)
    for process in processes:
        process.join()
    assert first == second and first[1] == 8
    (split,) = (tmp_path / "dtd").glob("split*.json")
    assert [row[0] for row in json.loads(split.read_text())["test"]] == first[0]
