"""Training batches under DATALOADER.DRAWS item: the same with any number of workers, and exactly
resumed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dassl.data import DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.utils import read_image
from PIL import Image
from torchvision import transforms as T

from causalclip.engine.draws import generators_kept
from causalclip.engine.loading import DecodedImages, Epochs, Images, training_loader

ITEM = ["DATALOADER.DRAWS", "item"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten pictures in two domains, as items of a data set."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    items = []
    for number in range(10):
        path = str(folder / f"{number}.png")
        size = (20 + number, 30, 3)
        Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)).save(path)
        facts = {"impath": path, "label": number % 3, "domain": number % 2}
        items.append(SimpleNamespace(**facts))
    return items


class Everything:
    """A transform that returns one draw of each random generator."""

    def __call__(self, image):
        return torch.tensor([random.random(), np.random.random(), torch.rand(()).item()])


class Process:
    """A transform that returns the id of its process."""

    def __call__(self, image):
        return torch.tensor(os.getpid())


@pytest.fixture
def epochs(photos, make_cfg, tmp_path):
    """A function (transform, KEY, VALUE, ...) -> the training batches of the photos.

    The fixture closes the loaders; the garbage collector may take five seconds for each worker.
    """
    made = []

    def make(transform, *options, sampler="RandomSampler"):
        cfg = make_cfg("CoOp", tmp_path, *ITEM, "DATALOADER.NUM_WORKERS", 0, *options)
        loader = build_data_loader(
            cfg, sampler, photos, batch_size=4, n_domain=2, n_ins=2, tfm=transform, is_train=True
        )
        made.append(training_loader(loader, cfg))
        return made[-1]

    yield make
    for loader in made:
        loader.close()


def seen(loader, count=2):
    """Return indices (N,) and images (N, ...) of `count` epochs."""
    batches = [batch for _ in range(count) for batch in loader]
    return (torch.cat([batch[key] for batch in batches]) for key in ("index", "img"))


def test_where_dassl_draws_the_toolkits_own_loader_stays(make_trainer, tmp_path):
    trainer = make_trainer("CoOp", tmp_path, "DATALOADER.DRAWS", "dassl")
    assert trainer.train_loader_x is trainer.dm.train_loader_x


def test_a_resume_is_exact_with_another_number_of_workers(make_trainer, tmp_path, monkeypatch):
    options = [*ITEM, "OPTIM.MAX_EPOCH", 3, "TRAIN.CHECKPOINT_FREQ", 1]
    whole = make_trainer("CDC", tmp_path / "whole", *options)
    whole.train()

    class Killed(Exception):
        """Stands for the end of a process between two epochs."""

    def die():
        if killed.epoch == 1:
            raise Killed

    killed = make_trainer("CDC", tmp_path / "killed", *options, "DATALOADER.NUM_WORKERS", 2)
    monkeypatch.setattr(killed, "before_epoch", die)
    before = set(multiprocessing.active_children())
    with pytest.raises(Killed):
        killed.train()
    assert not set(multiprocessing.active_children()) - before  # the garbage collector is slow
    resumed = make_trainer("CDC", tmp_path / "killed", *options, "DATALOADER.NUM_WORKERS", 1)
    resumed.train()
    assert resumed.start_epoch == 1
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


@pytest.mark.parametrize(
    ("sampler", "workers"),
    [
        ("RandomSampler", 0),
        ("RandomSampler", 2),
        ("RandomDomainSampler", 0),
        ("SeqDomainSampler", 0),
        ("RandomClassSampler", 0),
    ],
)
def test_order_and_draws_come_from_seed_and_epoch_alone(sampler, workers, epochs):
    options = ["DATALOADER.NUM_WORKERS", workers]
    one, other = (epochs(Everything(), *options, sampler=sampler) for _ in range(2))
    first = list(seen(one))
    torch.rand(3), random.random(), np.random.random()  # what else is drawn does not count
    again = list(seen(other))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert len(first[1].unique(dim=0)) == len(first[1])  # no draw is seen twice
    different = list(seen(epochs(Everything(), "SEED", 2, sampler=sampler)))
    assert not torch.equal(first[1][:4], different[1][:4])


def test_every_image_comes_once_an_epoch_in_a_new_order(epochs):
    loader = epochs(Everything())
    orders = [[i for batch in loader.batches(epoch) for _, i in batch] for epoch in range(2)]
    assert [len(set(order)) for order in orders] == [8, 8]  # ten images: two batches of four
    assert orders[0] != orders[1]


def test_an_image_looks_the_same_wherever_it_stands_in_the_epoch(epochs):
    loader = epochs(Everything())
    first = loader.dataset[1, 2]
    loader.dataset[1, 5]
    alone = loader.dataset[1, 2]
    assert torch.equal(first["img"], alone["img"])
    assert not torch.equal(loader.dataset[0, 2]["img"], alone["img"])


def test_a_view_does_not_depend_on_what_the_views_before_it_draw(epochs):
    much, little = T.Compose([Everything(), lambda _: Everything()(None)]), T.ToTensor()
    after_much = epochs([much, Everything()]).dataset[0, 3]
    after_little = epochs([little, Everything()]).dataset[0, 3]
    assert torch.equal(after_much["img2"], after_little["img2"])


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_trainings_random_stream_alone(workers, epochs):
    loader = epochs(Everything(), "DATALOADER.NUM_WORKERS", workers)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    list(seen(loader))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_the_generators_are_given_back_after_an_error_too():
    before = random.getstate()
    with pytest.raises(ZeroDivisionError), generators_kept():
        random.random()
        raise ZeroDivisionError
    assert random.getstate() == before


def test_items_are_dassls(photos, make_cfg, tmp_path):
    options = ["DATALOADER.K_TRANSFORMS", 2, "DATALOADER.RETURN_IMG0", True]
    cfg = make_cfg("CoOp", tmp_path, *ITEM, *options)
    plain = T.Compose([T.Resize((8, 8)), T.ToTensor()])  # draws nothing: comparable
    wrapper = DatasetWrapper(cfg, photos, transform=[plain, plain], is_train=True)
    theirs, ours = wrapper[3], Images(wrapper, seed=1, decoded_bytes=2**20)[0, 3]
    assert ours.keys() == theirs.keys()
    for key in ("label", "domain", "impath", "index"):
        assert ours[key] == theirs[key]
    for key in ("img", "img2"):
        assert len(ours[key]) == 2 and all(map(torch.equal, ours[key], theirs[key]))
    assert torch.equal(ours["img0"], theirs["img0"])


def test_workers_start_once_for_all_epochs(epochs):
    _, pids = seen(epochs(Process(), "DATALOADER.NUM_WORKERS", 2), count=3)
    assert len(pids.unique()) == 2


@pytest.mark.parametrize("abandoned", [False, True])
def test_workers_end_when_the_loader_is_closed(abandoned, epochs):
    before = set(multiprocessing.active_children())
    loader = epochs(Process(), "DATALOADER.NUM_WORKERS", 2)
    list(seen(loader))
    if abandoned:
        next(iter(loader))
    assert len(set(multiprocessing.active_children()) - before) == 2
    loader.close()
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_trained_before_a_stop_are_not_loaded_again(workers, epochs):
    loader = epochs(Everything(), "DATALOADER.NUM_WORKERS", workers)
    whole = list(epochs(Everything()))
    loader.done = 1
    rest = list(loader)
    assert rest[0] is None
    assert torch.equal(rest[1]["img"], whole[1]["img"])
    assert (loader.done, loader.epoch) == (0, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_that_was_left_early_begins_anew(workers, epochs):
    loader = epochs(Everything(), "DATALOADER.NUM_WORKERS", workers)
    for epoch in range(2):
        first = next(iter(loader))
        assert torch.equal(next(iter(loader))["img"], first["img"])
        assert loader.epoch == epoch
        list(loader)


def test_without_a_seed_every_run_draws_others(epochs):
    one, other = (list(seen(epochs(Everything(), "SEED", -1))) for _ in range(2))
    assert not torch.equal(one[1], other[1])


# Decoded pictures


def test_a_picture_is_decoded_once(photos, monkeypatch):
    kept = DecodedImages(len(photos), 2**20)
    first = [kept.read(i, item.impath) for i, item in enumerate(photos)]
    assert kept.used == sum(3 * w * h for w, h in (image.size for image in first))
    monkeypatch.setattr("causalclip.engine.loading.read_image", None)  # no more decoding
    for i, item in enumerate(photos):
        again, expected = kept.read(i, item.impath), read_image(item.impath)
        assert (again.mode, again.size) == ("RGB", expected.size)
        assert again.tobytes() == first[i].tobytes() == expected.tobytes()


def test_memory_stays_within_its_bound(photos):
    size = 3 * 20 * 30  # of the first picture
    kept = DecodedImages(len(photos), size + 10)
    for _ in range(2):
        for i, item in enumerate(photos):
            assert kept.read(i, item.impath).tobytes() == read_image(item.impath).tobytes()
    assert kept.used == size
    assert DecodedImages(1, 0).read(0, photos[0].impath).size == (30, 20)


def test_workers_share_what_they_decode(epochs):
    loader = epochs(T.Compose([T.Resize((8, 8)), T.ToTensor()]), "DATALOADER.NUM_WORKERS", 2)
    assert isinstance(loader, Epochs)
    list(seen(loader, count=3))
    sizes = [3 * 30 * (20 + number) for number in range(10)]
    assert loader.dataset.decoded.used == sum(sizes)  # each once, seen from this process


def test_of_two_workers_that_decode_the_same_picture_one_keeps_it(photos, monkeypatch):
    kept, image = DecodedImages(len(photos), 2**20), read_image(photos[0].impath)

    def slow(path):
        monkeypatch.undo()
        kept.read(0, path)  # the faster one
        return image

    monkeypatch.setattr("causalclip.engine.loading.read_image", slow)
    kept.read(0, photos[0].impath)
    assert kept.used == 3 * 20 * 30


def test_a_spawned_worker_gets_a_store_that_keeps_nothing(photos):
    copy = pickle.loads(pickle.dumps(DecodedImages(len(photos), 2**20)))
    assert copy.read(0, photos[0].impath).size == (30, 20) and copy.used == 0


DRAWN = ["INPUT.TRANSFORMS", ["random_resized_crop", "normalize"], "DATALOADER.NUM_WORKERS", 0]
ENCODED = ["DATALOADER.VIEWS_KEPT", 2, *DRAWN]


@pytest.mark.parametrize("name", ["CoOp", "ProGrad", "CoCoOp", "CLIP_Adapter"])
def test_views_that_are_encoded_once_train_as_the_same_views_encoded_anew(
    name, make_trainer, tmp_path
):
    kept, fresh = (
        make_trainer(name, tmp_path / folder, *options, *ITEM, "OPTIM.MAX_EPOCH", 2)
        for folder, options in (("kept", ENCODED), ("fresh", DRAWN))
    )
    kept.train(), fresh.train()
    with torch.no_grad():
        images = torch.stack([kept.test_loader.dataset[i]["img"] for i in range(4)])
        torch.testing.assert_close(kept.logits(images), fresh.logits(images), rtol=0, atol=1e-3)


def test_an_epoch_has_the_view_of_its_number_modulo_the_views_kept(epochs):
    kept, fresh = epochs(Everything()), epochs(Everything())
    kept.encode(lambda drawn: 2 * drawn, 2)
    by_place = {}
    for epoch in range(2):
        fresh.epoch = epoch
        batches = [fresh.dataset[epoch, index]["img"] for index in range(10)]
        by_place |= {(epoch, index): view for index, view in enumerate(batches)}
    for epoch in range(5):
        assert kept.epoch == epoch
        indices, features = seen(kept, 1)
        expected = [2 * by_place[epoch % 2, int(index)] for index in indices]
        assert torch.equal(features, torch.stack(expected))


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("MaPLe", [], "must be 0 for a method that learns in the image tower"),
        ("CDC", ["TRAINER.CDC.VISION", "none"], "as CDC here, got 2"),
        ("CoOp", ["DATALOADER.DRAWS", "dassl"], "needs DATALOADER.DRAWS item, got dassl"),
    ],
)
def test_views_that_cannot_be_encoded_once_are_refused(
    name, option, message, make_trainer, tmp_path
):
    with pytest.raises(ValueError, match=message):
        make_trainer(name, tmp_path, *ENCODED, *ITEM, *option)
