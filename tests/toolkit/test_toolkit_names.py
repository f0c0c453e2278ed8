"""Registries and the answer to a name that nobody registered."""

from __future__ import annotations

import pytest
from dassl.data.datasets import build_dataset
from dassl.engine import build_trainer
from dassl.utils import Registry


def test_a_registry_gives_back_what_was_registered():
    registry = Registry("THING")

    @registry.register()
    class First:
        pass

    class Second:
        pass

    registry.register(Second)
    assert registry.get("First") is First and registry.get("Second") is Second
    assert registry.registered_names() == ["First", "Second"]


def test_a_name_is_taken_once_unless_forced():
    registry = Registry("THING")

    class First:
        pass

    registry.register(First)
    with pytest.raises(KeyError, match="already registered"):
        registry.register(First)
    registry.register(First, force=True)


def test_an_unknown_trainer_is_an_error_that_lists_the_known_ones(toy):
    with pytest.raises(ValueError, match="ToyTrainer"):
        build_trainer(toy.cfg("TRAINER.NAME", "ToyTrayner"))


@pytest.mark.minidassl
def test_unknown_names_come_with_the_nearest_known_ones(toy):
    with pytest.raises(KeyError, match="'toytrainr' is not a known trainer; did you mean 'ToyTra"):
        build_trainer(toy.cfg("TRAINER.NAME", "toytrainr"))
    with pytest.raises(ValueError, match="not a known dataset; did you mean 'ToyImages'"):
        build_dataset(toy.cfg("DATASET.NAME", "ToyImage"))
    with pytest.raises(KeyError, match="not a known evaluator; did you mean 'Classification'"):
        build_trainer(toy.cfg("TEST.EVALUATOR", "Clasification"))
    with pytest.raises(KeyError, match="none \\(import the module that registers it\\)"):
        Registry("EMPTY").get("x")
