"""TPT against the published code; its views, and runs with other batches and labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import feature_inputs, weights
from golden.cases import assert_close
from outputs import arrays_of, results
from PIL import Image
from torchvision.transforms import AugMix, RandomCrop, ToTensor

from causalclip.clip.backbone import load_clip
from causalclip.clip.encode import encode_classes
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.zeroshot import class_features, cosine_logits
from causalclip.engine.contexts import Context
from causalclip.predict.predictor import Predictor
from causalclip.trainers.tpt import TPTConfig, Views, marginal_entropy, tuned

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "features.npz")
FEW = ("TRAINER.TPT.N_VIEWS", 10)


def views_of_images():
    """Features of two images in 64 views each, (2, 64, 48)."""
    features, image = feature_inputs.labelled("tpt", 2, 64, 48)
    return torch.stack([features[image == i] for i in range(2)])


@pytest.mark.parametrize("steps", [1, 3])
def test_words_and_logits_are_the_published_ones(steps, clip_files, monkeypatch):
    clip = load_clip(clip_files["small"]).double()
    # OpenAI's own rounds to fp32.
    monkeypatch.setattr(type(clip.ln_final), "forward", torch.nn.LayerNorm.forward)
    context = Context(4, "a photo of a")
    tokens = context.tokens(weights.CLASSNAMES, clip)

    def classify(words, views):
        text = encode_classes(clip, tokens, PromptSet(text=(words,)))
        return cosine_logits(views, text, clip.logit_scale.exp())

    for image, views in enumerate(views_of_images()):
        config = replace(TPTConfig(), steps=steps)
        words = tuned(context.start(clip), lambda words, v=views: classify(words, v), config)
        logits = classify(words, views[0])
        assert_close(words, GOLDEN[f"tpt/words_{steps}"][image], 1e-12, "words")
        assert_close(logits, GOLDEN[f"tpt/logits_{steps}"][image], 1e-12, "logits")


def test_the_entropy_is_that_of_the_mean_answer():
    logits = 5 * torch.randn(6, 4, dtype=torch.float64)
    mean = logits.softmax(-1).mean(0)
    torch.testing.assert_close(marginal_entropy(logits), -(mean * mean.log()).sum())
    assert marginal_entropy(torch.tensor([[0.0, -1e4]] * 2, requires_grad=True)).isfinite()


def test_a_step_makes_the_certain_views_agree_and_reads_no_other():
    logits = torch.cat([torch.tensor([[3.0, 0, 0], [0, 2.5, 0]]), torch.zeros(18, 3)])

    def steps(logits, count):
        return tuned(torch.zeros(3), lambda shift: logits + shift, TPTConfig(steps=count, lr=0.1))

    moved = steps(logits, 5)
    assert marginal_entropy(logits[:2] + moved) < marginal_entropy(logits[:2])
    changed = torch.cat([logits[:2], 0.1 * torch.randn(18, 3)])
    assert torch.equal(steps(changed, 5), moved)


# A run


def test_a_run_says_that_it_used_test_images_and_reads_no_label(make_trainer, trained, tmp_path):
    folder = trained("TPT", *FEW)[1]
    record = results(folder)
    order = "as listed, each image alone"
    assert record["details"] == {"test_time": True, "order": order}
    blind = make_trainer("TPT", tmp_path, *FEW, "FEATURE_CACHE", False)
    items = blind.test_loader.dataset.data_source
    labels = [item.label for item in items]
    for item, label in zip(items, labels[1:] + labels[:1], strict=True):
        item._label = label
    blind.test()
    one, other = arrays_of(folder), arrays_of(tmp_path)
    assert not np.array_equal(one["label"], other["label"])
    for name in ("path", "probabilities", "uncertainty"):
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    "options", [("DATALOADER.TEST.BATCH_SIZE", 7), ("DATALOADER.NUM_WORKERS", 1)]
)
def test_neither_batches_nor_workers_change_an_answer(options, make_trainer, trained, tmp_path):
    make_trainer("TPT", tmp_path, *FEW, "FEATURE_CACHE", False, *options).test()
    one, other = arrays_of(trained("TPT", *FEW)[1]), arrays_of(tmp_path)
    np.testing.assert_array_equal(one["probabilities"], other["probabilities"])


def test_a_predictor_gives_the_answers_of_the_evaluation(trained):
    trainer, folder = trained("TPT", *FEW)
    expected = arrays_of(folder)
    paths = expected["path"][5:9].tolist()
    predictor = Predictor(trainer, folder)
    found = [answer.probabilities for answer in predictor(paths)]
    np.testing.assert_array_equal(found, expected["probabilities"][5:9])
    (plain,) = predictor.batches(paths)  # of which GL-MCM reads the patches
    assert torch.equal(plain, torch.stack([*map(trainer.encoder.transform.plain, images(paths))]))


def images(paths):
    return [Image.open(path).convert("RGB") for path in paths]


def test_without_a_step_it_is_clip_and_with_one_another_seed_is_another_answer(
    make_trainer, trained, tmp_path
):
    trainer = make_trainer("TPT", tmp_path, *FEW, "TRAINER.TPT.LR", 1e-12, "SEED", 2)
    text = class_features(trainer.clip, trainer.classnames, ["a photo of a {}."])
    features = trainer.encoder.labelled(trainer.dm.dataset.test[:4])[0]
    plain = trainer.backbone.classify(features[:, : text.shape[1]], text).softmax(-1)
    found = trainer.predict_features(features).main.probabilities
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)
    one = trained("TPT", *FEW)[0].predict_features(features).main.probabilities
    assert not torch.allclose(one, plain, atol=1e-3)
    other = trained("TPT", *FEW)[0].encoder.labelled(trainer.dm.dataset.test[:4])[0]
    width = text.shape[1]
    assert torch.equal(features[:, :width], other[:, :width])
    assert not torch.equal(features[:, width:], other[:, width:])


# Views


def noise(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class RandomPart:
    def __call__(self, image):
        return ToTensor()(RandomCrop(32)(image))


def test_views_depend_on_the_seed_and_the_pixels_alone():
    views = Views(lambda image: ToTensor()(image.crop((0, 0, 32, 32))), RandomPart(), 5, 1)
    state = torch.get_rng_state()
    first = views(noise(0))
    assert torch.equal(state, torch.get_rng_state())
    assert first.shape == (5, 3, 32, 32) and torch.equal(first[0], views.plain(noise(0)))
    assert not torch.equal(first[1], first[2])
    torch.rand(3)
    with ThreadPoolExecutor(4) as pool:  # as `causalclip predict` reads images
        again = list(pool.map(views, [noise(i % 2) for i in range(20)]))
    assert all(torch.equal(each, first) for each in again[::2])
    other = replace(views, seed=2)(noise(0))
    assert torch.equal(other[0], first[0]) and not torch.equal(other, first)


def test_augmix_comes_between_the_crop_and_the_tensor(make_trainer, tmp_path):
    trainer = make_trainer("TPT", tmp_path, *FEW, "TRAINER.TPT.AUGMIX", True)
    kinds = [type(step) for step in trainer.random_view().transforms]
    assert kinds[kinds.index(AugMix) + 1] is ToTensor
    (image,) = images([trainer.dm.dataset.test[0].impath])
    mixed, plain = trainer.encoder.transform(image), trained_view(trainer)(image)
    assert torch.equal(mixed[0], plain[0]) and not torch.equal(mixed[1:], plain[1:])


def trained_view(trainer):
    """The views of the same trainer without AugMix."""
    steps = trainer.encoder.transform.random.transforms
    random = type(trainer.random_view())([step for step in steps if not isinstance(step, AugMix)])
    return replace(trainer.encoder.transform, random=random)


# Refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("TRAINER.TPT.CTX_INIT", " "), "TPT.CTX_INIT must be a word or more, got ' '"),
        (("TRAINER.TPT.N_VIEWS", 9), "TPT.CONFIDENT must leave one of 9 views, got 0.1"),
    ],
)
def test_a_setting_that_leaves_nothing_is_refused(options, message, make_trainer, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer("TPT", tmp_path, *options)
