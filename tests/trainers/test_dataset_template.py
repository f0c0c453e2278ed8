"""`DATASET.TEMPLATE` is honoured by every method whose text is hand-crafted."""

from __future__ import annotations

import pytest

from causalclip.clip.zeroshot import IMAGENET_TEMPLATES_SELECT, class_features
from causalclip.engine import contexts

OWN = "a catalogue picture of {} on white."
METHODS = [
    "CDC", "CLIP_Adapter", "CLIP_ICM", "GDA", "KgCoOp", "LPPlusPlus",
    "MMRL", "MMRLpp", "ProGrad", "ProLIP",
    "TCP", "TDA", "TipAdapter", "TipAdapterF",
    "VPT", "ZeroshotCLIP", "ZeroshotCLIP2",
]  # fmt: skip


@pytest.fixture
def read(make_trainer, tmp_path, monkeypatch):
    """read(method, KEY, VALUE, ...): the templates whose class features the method takes."""

    def read(method, *options):
        taken = []

        def record(clip, classnames, templates):
            taken.extend(templates)
            return class_features(clip, classnames, templates)

        monkeypatch.setattr(contexts, "class_features", record)
        make_trainer(method, tmp_path / method, *options)
        return taken

    return read


@pytest.mark.parametrize("method", METHODS)
def test_the_template_of_the_data_set_is_encoded_and_the_published_one_without(read, method):
    ensemble = list(IMAGENET_TEMPLATES_SELECT) if method == "ZeroshotCLIP2" else []
    assert read(method, "DATASET.TEMPLATE", OWN) == [*ensemble, OWN]
    if method not in ("VPT", "ZeroshotCLIP2"):
        assert read(method) == ["a photo of the number {}."]


def test_a_methods_own_setting_comes_before_it(read):
    options = ("DATASET.TEMPLATE", OWN, "TRAINER.ZEROSHOTCLIP.TEMPLATE", "one {}")
    assert read("ZeroshotCLIP", *options) == ["one {}"]


@pytest.mark.parametrize("method", ["CDC", "CoOp", "LinearProbe"])
def test_a_wrong_template_is_refused_before_any_data_is_read(
    make_trainer, tmp_path, monkeypatch, method
):
    monkeypatch.setattr("causalclip.engine.data.DataManager", None)
    with pytest.raises(ValueError, match="DATASET.TEMPLATE must be .* got 'no place'"):
        make_trainer(method, tmp_path, "DATASET.TEMPLATE", "no place")
