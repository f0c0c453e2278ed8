"""CDC's settings through Dassl: special cases that equal MaPLe, and the effect of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from outputs import arrays_of, results

from causalclip.cdc.evidence import FUSIONS, fuse, probabilities
from causalclip.clip.encode import encode_image
from causalclip.engine.calibration import validation_logits

NODE = "TRAINER.CDC."
# 10 images in batches of 8, the last one dropped: an epoch is one step.
SAME = ["INPUT.TRANSFORMS", ["random_resized_crop", "normalize"], "INPUT.RRCROP_SCALE", (0.5, 1.0)]
SAME += ["OPTIM.LR", 0.0035, "OPTIM.MAX_EPOCH", 3, "OPTIM.WARMUP_EPOCH", -1]


def cdc(**settings):
    """KEY, VALUE, ... of CDC's node."""
    return [part for key, value in settings.items() for part in (NODE + key, value)]


ALONE = cdc(
    LOSS="cross_entropy",
    FUSED_LOSS=False,
    FUSION="logits",
    BETA=0.0,
    GAMMA=0.0,
    INIT_NOISE=0.0,
    VISION="coupled",
    N_CTX=2,  # as MaPLe has
)


# -- limits --------------------------------------------------------------------------------------


@pytest.fixture
def maples(make_trainer, tmp_path):
    """A CDC with all its parts switched off, and a MaPLe for each of its three templates."""
    several = make_trainer(
        "CDC",
        tmp_path / "cdc",
        *SAME,
        *ALONE,
        *cdc(N_TEMPLATES=3, SHARE_PROJECTIONS=False, LOSS_REDUCTION="sum", INIT_NOISE=0.1),
    )
    each = [make_trainer("MaPLe", tmp_path / f"maple{m}", *SAME) for m in range(3)]
    for maple, template in zip(each, several.model.templates, strict=True):
        maple.model.load_state_dict(template.state_dict())
    return several, each


@torch.no_grad()
def test_templates_alone_answer_with_the_mean_of_as_many_maples_logits(maples):
    several, each = maples
    images = torch.randn(5, 3, 32, 32)
    logits = torch.stack([maple.logits(images) for maple in each])
    found = several.predict(images)
    torch.testing.assert_close(found.main.probabilities, logits.mean(0).softmax(-1))
    alone = found.members["template"].probabilities
    torch.testing.assert_close(alone.float(), logits.softmax(-1).transpose(0, 1))


def test_templates_alone_learn_as_as_many_maples(maples):
    several, each = maples
    images, labels = torch.randn(4, 3, 3, 32, 32), torch.tensor([0, 1, 2, 4])
    several.loss(images, labels)[0].backward()
    for m, (maple, template) in enumerate(zip(each, several.model.templates, strict=True)):
        maple.loss(images[:, m], labels)[0].backward()
        learned = dict(template.named_parameters())
        for name, weight in maple.model.named_parameters():
            torch.testing.assert_close(learned[name].grad, weight.grad, rtol=1e-3, atol=1e-5)


# -- readings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_fusion_decides_which_reading_the_method_is_judged_by(
    fusion, trained, make_trainer, tmp_path
):
    options = cdc(FUSION=fusion, FUSED_LOSS=FUSIONS[fusion].evidence is not None)
    trainer = make_trainer("CDC", tmp_path, *options)
    trainer.load_model(str(trained("CDC")[1]))
    trainer.test()
    record, found = results(tmp_path), arrays_of(tmp_path)
    assert record["metrics"] == record["variants"][fusion]
    np.testing.assert_array_equal(found["probabilities"], found[f"{fusion}/probabilities"])
    np.testing.assert_array_equal(found["uncertainty"], found[f"{fusion}/uncertainty"])


def test_each_template_alone_is_measured(trained):
    _, folder = trained("CDC")
    record, found = results(folder), arrays_of(folder)
    answers = found["template_probabilities"].argmax(-1)  # (N, M)
    expected = 100 * (answers == found["label"][:, None]).mean(0)
    accuracies = [metrics["accuracy"] for metrics in record["members"]["template"]]
    np.testing.assert_allclose(accuracies, expected, rtol=1e-5)
    assert not [name for name in found if name.startswith("template_1")]  # kept once


@pytest.mark.parametrize(("typed", "expected"), [("0.5", 0.5), ("1", 1.0), ("1.0", 1.0)])
def test_the_discount_as_it_is_typed(typed, expected, make_trainer, tmp_path):
    make_trainer("CDC", tmp_path, *cdc(DISCOUNT=typed)).train()
    assert results(tmp_path)["details"]["discount"] == expected
    found = arrays_of(tmp_path)
    if expected == 1:
        np.testing.assert_array_equal(found["probabilities"], found["dempster/probabilities"])
    else:
        assert not np.allclose(found["probabilities"], found["dempster/probabilities"])


def test_a_discount_is_fitted_on_the_validation_split(make_trainer, tmp_path):
    trainer = make_trainer("CDC", tmp_path, *cdc(DISCOUNT="fit"))
    trainer.train()
    with torch.no_grad():
        logits, labels = validation_logits(trainer)
    likelihood = {
        eta: -probabilities(fuse(trainer.evidence(logits).double(), discount=eta))
        .gather(-1, labels[:, None])
        .log()
        .mean()
        .item()
        for eta in np.linspace(0.25, 1, 16)
    }
    found = results(tmp_path)["details"]["discount"]
    best = min(likelihood, key=lambda eta: likelihood[eta])  # brute force over a grid
    assert found == pytest.approx(best, abs=0.05)


# -- what a logit has to exceed ------------------------------------------------------------------


def test_evidence_is_what_exceeds_the_images_own_level(make_trainer, tmp_path):
    trainer = make_trainer("CDC", tmp_path)
    logits = torch.randn(3, 4, 5)
    own = logits - logits.mean(-1, keepdim=True)
    torch.testing.assert_close(trainer.evidence(logits), own.exp())
    torch.testing.assert_close(trainer.evidence(logits + 7), trainer.evidence(logits))


def test_evidence_above_the_training_images_level_grows_with_an_images_own(make_trainer, tmp_path):
    trainer = make_trainer("CDC", tmp_path, *cdc(EVIDENCE_OFFSET="training"))
    trainer.before_train()
    offset = trainer.details()["offset"]
    assert offset != 0
    logits = torch.randn(3, 4, 5)
    torch.testing.assert_close(trainer.evidence(logits), (logits - offset).exp())


# -- what learns ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_tokens_alone_leave_the_projections_as_they_start(shared, make_trainer, tmp_path):
    options = cdc(VISION="coupled", N_CTX=2, LEARN="tokens", SHARE_PROJECTIONS=shared)
    trainer = make_trainer("CDC", tmp_path, *SAME, *options)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    moved = {
        name.split(".", 2)[2]
        for name, weight in trainer.model.named_parameters()
        if not torch.equal(weight, before[name])
    }
    assert moved == {"ctx", "compound_prompts_text.0"}
    width = trainer.clip.transformer.width
    assert results(tmp_path)["training"]["learnable_parameters"] == 4 * 2 * 2 * width


# -- losses --------------------------------------------------------------------------------------


def one_loss(trainer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(4, 4, 3, 32, 32, generator=generator)
    return trainer.loss(images, torch.tensor([0, 1, 2, 4]))[0]


def test_images_are_held_at_the_frozen_towers_view_by_view(make_trainer, tmp_path):
    held, free = (
        one_loss(make_trainer("CDC", tmp_path, *cdc(GAMMA_IMAGE=weight))) for weight in (2.0, 0.0)
    )
    trainer = make_trainer("CDC", tmp_path)
    images = torch.randn(4, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        learned = trainer.image_features(images, trainer.model())
        distances = [
            1 - torch.cosine_similarity(learned[:, m], encode_image(trainer.clip, images[:, m]))
            for m in range(4)
        ]
    expected = 2 * torch.stack(distances).mean().item()
    assert expected > 1e-3
    assert (held - free).item() == pytest.approx(expected, rel=1e-3)


def test_each_template_learns_an_image_projection_held_near_clips(make_trainer, tmp_path):
    light, heavy = (
        make_trainer("CDC", tmp_path / name, *cdc(IMAGE_PROJECTION=2.0, PROJECTION_WEIGHT=weight))
        for name, weight in (("light", 0.0), ("heavy", 3.0))
    )
    for trainer in (light, heavy):
        torch.nn.init.constant_(trainer.model.image_projection, 0.01)
    squares = 4 * light.clip.visual.proj.numel() * (2 * 0.01) ** 2
    penalty = one_loss(heavy) - one_loss(light)
    assert penalty.item() == pytest.approx(3 * squares, rel=1e-3)
    torch.nn.init.zeros_(light.model.image_projection)
    light.train()
    first, *others = light.model.image_projection
    assert first.any() and not any(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"BASE": "CoOp", "GAMMA_IMAGE": 0.0}, "TRAINER.CDC.BASE is CoOp"),
        ({"VISION": "none", "GAMMA_IMAGE": 0.0}, "TRAINER.CDC.VISION is none"),
    ],
)
def test_image_projections_need_image_prompts_of_cdc(settings, where, make_trainer, tmp_path):
    message = f"TRAINER.CDC.IMAGE_PROJECTION must be 0 where {where}, got 1.0"
    with pytest.raises(ValueError, match=message):
        make_trainer("CDC", tmp_path, *cdc(IMAGE_PROJECTION=1.0, **settings))


# -- views ---------------------------------------------------------------------------------------


def test_views_that_no_template_sees_are_said(make_trainer, tmp_path, capsys):
    families = ["crop", "color_jitter", "gray_blur", "perspective_erasing"]
    make_trainer("CDC", tmp_path, *cdc(N_TEMPLATES=2, VIEWS=families))
    assert (
        "Note: 2 templates see none of the VIEWS gray_blur, perspective" in capsys.readouterr().out
    )
    make_trainer("CDC", tmp_path, *cdc(N_TEMPLATES=4, VIEWS=families))
    assert "see none of the VIEWS" not in capsys.readouterr().out


# -- inside the invariant subspace ---------------------------------------------------------------


def test_base_to_new_inside_the_subspace_of_a_clip_icm_run(make_trainer, tmp_path, small_clip):
    options = ["MODEL.BACKBONE.NAME", small_clip, "DATASET.NUM_SHOTS", 8]
    domains = ["DATASET.SOURCE_DOMAINS", ["ink", "chalk"], "DATASET.TARGET_DOMAINS", ["neon"]]
    icm = [*options, *domains, "TRAINER.CLIP_ICM.DRAWS", 1, "TRAINER.CLIP_ICM.SELECT", "fixed"]
    icm += ["TRAINER.CLIP_ICM.DIM_INV", 8]  # without a choice, which might keep the plain features
    make_trainer("CLIP_ICM", tmp_path / "icm", *icm).train()
    inside = [*options, *cdc(PROJECTION=str(tmp_path / "icm" / "projection.safetensors"))]
    make_trainer("CDC", tmp_path / "base", *inside).train()
    new = make_trainer("CDC", tmp_path / "new", *inside, "DATASET.SUBSAMPLE_CLASSES", "new")
    new.load_model(str(tmp_path / "base"))
    new.test()
    assert results(tmp_path / "base")["classnames"][0] == "zero"
    assert results(tmp_path / "new")["classnames"][0] == "five"
    plain = make_trainer("CDC", tmp_path / "plain", *options, "DATASET.SUBSAMPLE_CLASSES", "new")
    plain.load_model(str(tmp_path / "base"))
    plain.test()  # the same prompts outside of the subspace answer something else
    found, other = (arrays_of(tmp_path / name)["probabilities"] for name in ("new", "plain"))
    assert new.backbone.projection.basis.shape[1] < 32
    assert not np.allclose(found, other, atol=1e-3)
