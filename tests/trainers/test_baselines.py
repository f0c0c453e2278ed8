"""What the baselines compute, against slow transcriptions; what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import weights
from golden.cases import without_data
from safetensors.torch import save_file
from scipy import stats
from torch.nn import functional as F

from causalclip.clip.backbone import build_clip
from causalclip.clip.interface import tokenize
from causalclip.clip.zeroshot import IMAGENET_TEMPLATES_SELECT
from causalclip.trainers.clip_adapter import CLIP_Adapter
from causalclip.trainers.cocoop import CoCoOp
from causalclip.trainers.coop import CoOp
from causalclip.trainers.ivlp import IVLP
from causalclip.trainers.kgcoop import KgCoOp
from causalclip.trainers.promptsrc import PromptSRC, gaussian_weights
from causalclip.trainers.tip_adapter import cache_logits, one_hot, search_grid
from causalclip.trainers.zeroshot_clip import ZeroshotCLIP2

IMAGES = weights.images(0)
LABELS = weights.labels(0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, str]:
    """A random ViT and a random ResNet CLIP."""
    folder = tmp_path_factory.mktemp("clips")
    resnet = {"vision_layers": (1, 1, 1, 1), "vision_width": 16}
    kinds = {"vit": {"vision_layers": 3}, "resnet": resnet}
    for kind, shape in kinds.items():
        model = build_clip(embed_dim=48, **shape)
        said = {"activation": "quick_gelu"}
        save_file(model.state_dict(), folder / f"{kind}.safetensors", metadata=said)
    return {kind: str(folder / f"{kind}.safetensors") for kind in kinds}


def build(trainer_class, backbone: str, dataset: str = "OxfordPets", **settings):
    """A trainer that knows five class names and no data."""
    depths = {key: 3 for key in trainer_class.settings_table if key.startswith("PROMPT_DEPTH")}
    torch.manual_seed(0)
    return without_data(
        trainer_class, backbone, dataset={"NAME": dataset}, **{**depths, **settings}
    )


def zero_shot_logits(trainer, template: str) -> torch.Tensor:
    """CLIP's logits, written out."""
    names = [name.replace("_", " ") for name in weights.CLASSNAMES]
    with torch.no_grad():
        text = trainer.clip.encode_text(tokenize([template.format(name) for name in names]))
        image = trainer.clip.encode_image(IMAGES)
    return trainer.backbone.logit_scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


def test_cocoop_on_a_batch_equals_image_after_image(clips):
    trainer = build(CoCoOp, clips["vit"], N_CTX=4)
    together = trainer.logits(IMAGES)
    apart = torch.cat([trainer.logits(image[None]) for image in IMAGES])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], trainer.logits(IMAGES.flip(0))[0])


def test_kgcoop_without_weight_is_coop_and_the_weight_adds_the_distance(clips):
    coop = build(CoOp, clips["vit"], CTX_INIT="a photo of a")
    plain = coop.loss(IMAGES, LABELS)[0]
    assert torch.equal(build(KgCoOp, clips["vit"], W=0.0).loss(IMAGES, LABELS)[0], plain)
    near = build(KgCoOp, clips["vit"], W=8.0)
    learned = near.text_features(near.model()).detach().numpy()
    given = near.handcrafted.numpy()
    distance = np.mean(
        [
            1 - a @ b / math.sqrt(a @ a) / math.sqrt(b @ b)
            for a, b in zip(learned, given, strict=True)
        ]
    )
    assert near.loss(IMAGES, LABELS)[0].item() == pytest.approx(plain.item() + 8 * distance, 1e-5)


def test_kgcoop_stays_near_its_own_template_for_textures(clips):
    trainer = build(KgCoOp, clips["vit"], dataset="DescribableTextures")
    assert trainer.template() == "a photo of a {}, a type of texture."
    assert build(KgCoOp, clips["vit"], TEMPLATE="a {}.").template() == "a {}."


def test_promptsrc_weights_epochs_by_a_gaussian():
    density = stats.norm.pdf(np.arange(1, 21), loc=15, scale=1)
    np.testing.assert_allclose(gaussian_weights(20, 15, 1), density / density.sum(), rtol=1e-12)


def test_promptsrc_without_its_terms_is_cross_entropy_and_the_mean_kl(clips):
    trainer = build(PromptSRC, clips["vit"], TEXT_LOSS_WEIGHT=0.0, IMAGE_LOSS_WEIGHT=0.0)
    loss, logits = trainer.loss(IMAGES, LABELS)
    with torch.no_grad():
        image = F.normalize(trainer.clip.encode_image(IMAGES), dim=-1)
    teacher = torch.softmax(trainer.backbone.logit_scale * image @ trainer.teacher_text.T, -1)
    kl = (teacher * (teacher.log() - logits.log_softmax(-1))).sum() / logits.numel()
    expected = F.cross_entropy(logits, LABELS) + kl
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_clip_adapter_of_ratio_zero_is_zero_shot_clip(clips):
    trainer = build(CLIP_Adapter, clips["vit"], RATIO=0.0)
    expected = zero_shot_logits(trainer, "a photo of a {}, a type of pet.")
    torch.testing.assert_close(trainer.logits(IMAGES), expected, rtol=1e-5, atol=1e-5)
    other = build(CLIP_Adapter, clips["vit"], RATIO=0.5)
    assert not torch.allclose(other.logits(IMAGES), expected, rtol=1e-2)


@pytest.mark.parametrize(("dataset", "count"), [("OxfordPets", 8), ("ImageNet", 7)])
def test_the_ensemble_is_the_mean_of_normalised_texts(dataset, count, clips):
    trainer = build(ZeroshotCLIP2, clips["vit"], dataset=dataset)
    assert len(trainer.templates()) == count
    assert list(trainer.templates()[:7]) == list(IMAGENET_TEMPLATES_SELECT)
    mean = torch.zeros(48)
    for template in trainer.templates():
        with torch.no_grad():
            text = trainer.clip.encode_text(tokenize(template.format("forest path")))[0]
        mean += text / text.norm() / count
    torch.testing.assert_close(trainer.text[0], mean / mean.norm(), rtol=1e-5, atol=1e-6)
    given = {"NAME": dataset, "TEMPLATE": "a {}."}
    trainer = without_data(ZeroshotCLIP2, clips["vit"], dataset=given)
    assert trainer.templates()[7:] == ["a {}."]


def test_cache_logits_sum_one_affinity_per_kept_image():
    random = np.random.default_rng(0)
    features, keys = (F.normalize(torch.tensor(random.normal(size=(n, 6))), dim=-1) for n in (3, 5))
    labels = torch.tensor([0, 2, 2, 1, 0])
    expected = np.zeros((3, 4))
    for b in range(3):
        for n in range(5):
            affinity = math.exp(-5.5 * (1 - float(features[b] @ keys[n])))
            expected[b, labels[n]] += affinity
    found = cache_logits(features @ keys.T, one_hot(labels, 4).double(), 5.5)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_search_grid_is_the_published_one():
    betas, alphas = search_grid([7.0, 3.0], [200, 20])
    assert (len(betas), len(alphas)) == (200, 20)
    assert (betas[0], alphas[0]) == (0.1, 0.1)
    assert betas[-1] == pytest.approx(6.9655) and alphas[-1] == pytest.approx(2.855)


TIP = ["DATASET.SUBSAMPLE_CLASSES", "base"]


@pytest.mark.parametrize("name", ["TipAdapter", "TipAdapterF"])
def test_tip_adapter_keeps_what_the_search_found(name, make_trainer, tmp_path):
    trainer = make_trainer(name, tmp_path / "run", *TIP)
    trainer.train()
    found, fit = trainer.details(), trainer.fitted
    features, targets = trainer.encoder.labelled(trainer.dm.dataset.val)
    predicted = trainer.predict_features(features).main.probabilities.argmax(-1)
    assert 100 * (predicted == targets).double().mean().item() == found["validation_accuracy"]
    assert fit.alpha.item() == pytest.approx(found["alpha"])
    assert torch.equal(one_hot(fit.labels, 5).sum(0), torch.full((5,), 2.0))  # two shots
    again = make_trainer(name, tmp_path / "again", *TIP)
    again.load_model(str(tmp_path / "run"))
    assert torch.equal(again.predict_features(features).main.probabilities.argmax(-1), predicted)


def test_fine_tuning_moves_the_keys_and_lowers_the_loss(make_trainer, tmp_path):
    trainer = make_trainer("TipAdapterF", tmp_path, "OPTIM.MAX_EPOCH", 3, "OPTIM.LR", 0.01)
    super_cache = super(type(trainer), trainer).cache
    keys, labels = super_cache()
    tuned, values = trainer.fine_tuned(keys, labels), one_hot(labels, 5)
    batches = list(trainer.train_loader_x)
    losses = [
        sum(trainer.step_loss(batch, k, values).item() for batch in batches) for k in (keys, tuned)
    ]
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    "settings", [{"N_CTX_VISION": 0}, {"N_CTX_TEXT": 0}, {"PROMPT_DEPTH_VISION": 0}]
)
def test_tokens_without_depth_or_depth_without_tokens_is_refused(settings, clips):
    with pytest.raises(ValueError, match="(text|vision)"):
        build(IVLP, clips["vit"], **settings)


def test_class_specific_contexts_refuse_as_many_other_classes(make_trainer, tmp_path):
    csc = ["TRAINER.COOP.CSC", True, "TRAINER.COOP.CTX_INIT", ""]
    make_trainer("CoOp", tmp_path / "base", *csc).train()
    same = make_trainer("CoOp", tmp_path / "same", *csc)
    same.load_model(str(tmp_path / "base"))
    other = make_trainer("CoOp", tmp_path / "new", *csc, "DATASET.SUBSAMPLE_CLASSES", "new")
    with pytest.raises(ValueError, match="learned for the classes zero, one, .* cannot move"):
        other.load_model(str(tmp_path / "base"))
