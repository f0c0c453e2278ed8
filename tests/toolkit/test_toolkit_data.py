"""Few-shot draws, class names, samplers and batches, against simple versions and Dassl."""

from __future__ import annotations

import pickle
import random
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader, build_sampler
from dassl.data.datasets import DatasetBase, Datum


def minidassl(*values):
    return pytest.param(*values, marks=pytest.mark.minidassl)


def labels_of(items):
    return [item.label for item in items]


@pytest.mark.minidassl
def test_a_python_that_cannot_unpack_a_tar_safely_is_refused_before_the_download(
    monkeypatch, tmp_path
):
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    data = object.__new__(DatasetBase)
    with pytest.raises(RuntimeError, match=r"set\.tar\.gz needs Python 3\.10\.12, 3\.11\.4 or"):
        data.download_data("http://nowhere.invalid/set", str(tmp_path / "set.tar.gz"), False)


@pytest.mark.minidassl
def test_a_download_is_unpacked_into_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "served.zip", "w") as archive:
        archive.writestr("images/a.txt", "a")
    data, url = object.__new__(DatasetBase), (tmp_path / "served.zip").as_uri()
    data.download_data(url, str(tmp_path / "set" / "set.zip"), from_gdrive=False)
    assert (tmp_path / "set" / "images" / "a.txt").read_text() == "a"


@pytest.mark.filterwarnings("ignore:No file found")
def test_a_datum_is_read_only_and_its_image_exists(image_root):
    datum = Datum(str(image_root / "ant_0.png"), 3, 1, "ant")
    assert (datum.label, datum.domain, datum.classname) == (3, 1, "ant")
    with pytest.raises(AttributeError):
        datum.label = 4
    with pytest.raises((FileNotFoundError, AssertionError)):
        Datum(str(image_root / "gone.png"))


def test_pickled_data_are_plain_attributes_of_the_documented_class(toy):
    copy = pickle.loads(pickle.dumps(toy.items[5]))
    assert copy.__dict__ == {
        "_impath": toy.items[5].impath,
        "_label": 1,
        "_domain": 1,
        "_classname": "bee",
    }
    assert type(copy).__module__ == "dassl.data.datasets.base_dataset"


def test_few_shots_are_random_samples_per_class_in_order_of_appearance(toy):
    items = toy.items[::-1]
    random.seed(5)
    expected = []
    for label in (2, 1, 0):  # classes in the order of the reversed list
        expected += random.sample([item for item in items if item.label == label], 2)
    after = random.random()
    random.seed(5)
    assert DatasetBase(train_x=items).generate_fewshot_dataset(items, num_shots=2) == expected
    assert random.random() == after


def test_a_class_with_fewer_images_than_shots_keeps_all_or_repeats(toy, capsys, is_minidassl):
    dataset, items = DatasetBase(train_x=toy.items), toy.items[3:]  # one ant
    drawn = dataset.generate_fewshot_dataset(items, num_shots=4)
    assert labels_of(drawn) == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    note = "Note: fewer than 4 images in 1 classes: ant (1)"
    assert (note in capsys.readouterr().out) == is_minidassl
    repeated = dataset.generate_fewshot_dataset(items, num_shots=4, repeat=True)
    assert labels_of(repeated) == [0] * 4 + [1] * 4 + [2] * 4


def test_no_shots_means_all_images_and_several_sources_give_several_sets(toy):
    dataset = DatasetBase(train_x=toy.items)
    assert dataset.generate_fewshot_dataset(toy.items, num_shots=-1) is toy.items
    one, two = dataset.generate_fewshot_dataset(toy.items, toy.items, num_shots=1)
    assert labels_of(one) == labels_of(two) == [0, 1, 2]


def test_class_names_follow_the_labels(toy):
    dataset = DatasetBase(train_x=toy.items[::-1], test=toy.items)
    assert dataset.classnames == ["ant", "bee", "cat"]
    assert (dataset.num_classes, dataset.lab2cname) == (3, {0: "ant", 1: "bee", 2: "cat"})


@pytest.mark.minidassl
def test_a_class_without_training_images_keeps_its_place_among_the_names(toy, capsys):
    without_bees = [item for item in toy.items if item.classname != "bee"]
    dataset = DatasetBase(train_x=without_bees, test=toy.items)
    assert (dataset.classnames, dataset.num_classes) == (["ant", "bee", "cat"], 3)
    assert "no training image for class 1 (bee)" in capsys.readouterr().out


@pytest.mark.minidassl
def test_labels_without_images_or_with_two_names_are_errors(toy):
    without_bees = [item for item in toy.items if item.classname != "bee"]
    with pytest.raises(ValueError, match="contiguous from 0 to 2.*no image.*label 1"):
        DatasetBase(train_x=without_bees, test=without_bees)
    with pytest.raises(ValueError, match="train_x is empty"):
        DatasetBase(train_x=[], test=toy.items)
    path = toy.items[0].impath
    with pytest.raises(ValueError, match="label 0 has two class names, 'ant' and 'Ant'"):
        DatasetBase(train_x=[Datum(path, 0, 0, "ant"), Datum(path, 0, 0, "Ant")])


def test_unknown_domains_are_refused(toy):
    dataset = DatasetBase(train_x=toy.items)
    dataset.domains = ["photo", "sketch"]
    dataset.check_input_domains(["photo"], ["sketch"])
    with pytest.raises(ValueError, match="Input domain must belong to .*got \\[phot\\]"):
        dataset.check_input_domains(["phot"], ["sketch"])


# Samplers: 20 items, label i % 5 (the last two: 5), domains 2, 0, 1 in turn.
SOURCE = [SimpleNamespace(label=i % 5 if i < 18 else 5, domain=(2, 0, 1)[i % 3]) for i in range(20)]
# The second pass after seed 1 (the first is drawn at construction), made by Dassl 0.6.3.
ORDERS = [
    ("RandomDomainSampler", {"batch_size": 4, "n_domain": 2}, "9 15 5 11 8 17 12 3 16 4 6 18"),
    ("SeqDomainSampler", {"batch_size": 6}, "7 16 5 14 0 6 1 19 2 11 18 3 10 4 17 8 15 9"),
    (
        "RandomClassSampler",
        {"batch_size": 6, "n_ins": 3},
        "9 4 14 6 16 11 13 3 8 5 15 0 7 2 12 18 19 19",
    ),
]


def _seed(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize(("name", "options", "order"), ORDERS)
def test_domain_and_class_samplers_draw_as_dassl_does(name, options, order):
    _seed(1)
    sampler = build_sampler(name, data_source=SOURCE, **options)
    assert [int(index) for index in sampler] == [int(index) for index in order.split()]


def test_the_random_sampler_is_a_permutation_seeded_from_the_global_generator():
    _seed(1)
    seed = int(torch.empty((), dtype=torch.int64).random_())
    expected = torch.randperm(20, generator=torch.Generator().manual_seed(seed)).tolist()
    _seed(1)
    assert list(build_sampler("RandomSampler", data_source=SOURCE)) == expected
    assert list(build_sampler("SequentialSampler", data_source=SOURCE)) == list(range(20))


@pytest.mark.minidassl
def test_a_samplers_length_is_that_of_its_current_pass():
    _seed(1)
    sampler = build_sampler("RandomDomainSampler", data_source=SOURCE, batch_size=4, n_domain=2)
    lengths = set()
    for _ in range(20):
        order = list(sampler)
        assert len(sampler) == len(order)
        lengths.add(len(order))
    assert len(lengths) > 1  # otherwise this test shows nothing


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("NoSampler", {}, "Sampler|sampler"),
        ("RandomClassSampler", {"batch_size": 2, "n_ins": 3}, "=2 must be no less than n_ins=3"),
        minidassl("RandomDomainSampler", {"batch_size": 8, "n_domain": 4}, "at most 3, the num"),
        minidassl("RandomDomainSampler", {"batch_size": 5, "n_domain": 2}, "multiple of the 2"),
        minidassl("SeqDomainSampler", {"batch_size": 60}, "20 images per domain, .* 1 has 6"),
        minidassl("RandomClassSampler", {"batch_size": 60, "n_ins": 3}, "20 .* the data has 6"),
    ],
)
def test_samplers_that_cannot_be_built_are_explained(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_sampler(name, data_source=SOURCE, **options)


# Batches


def test_several_transforms_views_and_the_plain_image(toy):
    cfg = toy.cfg("DATALOADER.K_TRANSFORMS", 2, "DATALOADER.RETURN_IMG0", True)
    dataset = DatasetWrapper(cfg, toy.items, transform=[np.asarray, np.array], is_train=True)
    item = dataset[1]
    assert set(item) == {"label", "domain", "impath", "index", "img", "img2", "img0"}
    assert [len(item["img"]), len(item["img2"])] == [2, 2]
    assert item["img0"].shape == (3, 8, 8)
    assert not isinstance(DatasetWrapper(cfg, toy.items, transform=np.asarray)[0]["img"], list)
    with pytest.raises(ValueError, match="2 times because transform is None"):
        DatasetWrapper(cfg, toy.items, is_train=True)


def test_the_last_small_batch_is_dropped_in_training_only(toy):
    manager = DataManager(toy.cfg("DATALOADER.TRAIN_X.BATCH_SIZE", 5))
    assert [len(batch["label"]) for batch in manager.train_loader_x] == [5, 5]
    manager = DataManager(toy.cfg("DATALOADER.TEST.BATCH_SIZE", 5))
    assert [len(batch["label"]) for batch in manager.test_loader] == [5, 5, 2]
    manager = DataManager(toy.cfg("DATALOADER.TRAIN_X.BATCH_SIZE", 50))
    assert [len(batch["label"]) for batch in manager.train_loader_x] == [12]


def test_the_manager_has_classes_and_loaders_and_prints_a_summary(toy, capsys):
    manager = DataManager(toy.cfg("DATASET.SOURCE_DOMAINS", ("a", "b")))
    assert (manager.num_classes, manager.num_source_domains) == (3, 2)
    assert manager.lab2cname == {0: "ant", 1: "bee", 2: "cat"}
    assert manager.train_loader_u is None
    out = capsys.readouterr().out
    batch = next(iter(manager.train_loader_x))
    assert set(batch) == {"label", "domain", "impath", "index", "img"}
    assert batch["img"].shape == (4, 3, 8, 8) and batch["label"].shape == (4,)
    for line in ("# classes  3", "# train_x  12", "# val      6", "# test     12"):
        assert line in out


@pytest.mark.minidassl
def test_an_empty_split_is_an_error(toy):
    with pytest.raises(ValueError, match="no images to load for evaluation of ToyImages"):
        build_data_loader(toy.cfg(), data_source=[], is_train=False)


class _Draws:
    """A transform that returns one draw of each generator."""

    def __call__(self, image):
        return torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])


def test_worker_processes_seed_all_three_generators(toy):
    def epoch():
        _seed(4)
        cfg = toy.cfg("DATALOADER.NUM_WORKERS", 2, "DATALOADER.TRAIN_X.BATCH_SIZE", 1)
        manager = DataManager(cfg, custom_tfm_train=_Draws(), custom_tfm_test=_Draws())
        return torch.cat([batch["img"] for batch in manager.train_loader_x])

    first, again = epoch(), epoch()
    assert torch.equal(first, again)
    for column in first.T:
        assert len(set(column.tolist())) == len(column)  # no two workers draw the same
