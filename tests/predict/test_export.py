"""Exported files give the run's answers, read without code of causalclip."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image
from safetensors.torch import load_file

from causalclip import Predictor
from causalclip.cdc.evidence import evidence_from_logits, fuse, probabilities
from causalclip.clip.backbone import load_clip
from causalclip.predict import export as exporting
from causalclip.predict.commands import export_main
from causalclip.predict.export import export


@pytest.fixture
def exported(run, tmp_path, capsys):
    """A function (method, *arguments) -> status, names of the files, stderr."""

    def exported(method, *arguments, options=()):
        status = export_main([str(run(method, *options)), "--output", str(tmp_path), *arguments])
        printed = capsys.readouterr()
        names = sorted(path.name for path in tmp_path.iterdir())
        assert status or all(f"{name}: checked" in printed.out for name in names)
        return status, names, printed.err

    return exported


def metadata(folder) -> dict[str, str]:
    with safetensors.safe_open(folder / "classes.safetensors", "pt") as file:
        return file.metadata()


def pictures(paths, folder) -> torch.Tensor:
    """The images after the transform in the metadata; they have the right size already."""
    facts = json.loads(metadata(folder)["image"])
    mean, std = (torch.tensor(facts[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in paths]
    return torch.stack([(each.permute(2, 0, 1) / 255 - mean) / std for each in pixels])


def probabilities_of(features: torch.Tensor, folder) -> torch.Tensor:
    """The logits of docs/export.md for image features (B, E), or (B, M, E) for CDC, and classes."""
    tensors = load_file(folder / "classes.safetensors")
    if "projection" in tensors:
        features = features @ tensors["projection"]
    z = features / features.norm(dim=-1, keepdim=True)
    if z.dim() == 2:
        return (tensors["logit_scale"] * z @ tensors["text"].T).softmax(-1)
    logits = tensors["logit_scale"] * torch.einsum("bme,mke->bmk", z, tensors["text"])
    evidence = evidence_from_logits(logits, logits.mean(-1, keepdim=True)).double()
    discount = json.loads(metadata(folder)["details"])["discount"]
    return probabilities(fuse(evidence, discount=discount))


@pytest.mark.parametrize("method", ["CoOp", "CLIP_ICM"])
def test_class_features_are_all_a_text_method_needs(
    method, run, recorded, random_clip, exported, tmp_path
):
    assert exported(method)[:2] == (0, ["classes.safetensors"])
    assert json.loads(metadata(tmp_path)["classnames"]) == ["zero", "one", "two", "three", "four"]
    expected = recorded(run(method))
    with torch.no_grad():
        z = load_clip(random_clip).encode_image(pictures(expected["path"][:3], tmp_path))
        p = probabilities_of(z, tmp_path)
    np.testing.assert_allclose(p.numpy(), expected["probabilities"][:3], atol=1e-5)


@pytest.mark.parametrize(
    ("method", "form", "options"),
    [
        ("CDC", "torch", ()),
        ("CDC", "onnx", ()),
        ("CDC", "torch", ("TRAINER.CDC.IMAGE_PROJECTION", 2.0)),
        ("CoOp", "onnx", ()),
    ],
)
def test_the_image_tower_is_exported_as_a_program(
    method, form, options, run, recorded, exported, tmp_path
):
    """A tower with deep prompts; in ONNX the tower of any method, so that no CLIP is needed."""
    if form == "onnx":
        pytest.importorskip("onnxscript", reason="no onnxscript: pip install causalclip[onnx]")
    file = {"torch": "image.pt2", "onnx": "image.onnx"}[form]
    status, names, _ = exported(method, "--format", form, options=options)
    assert (status, names) == (0, ["classes.safetensors", file])
    expected = recorded(run(method, *options))
    images = pictures(expected["path"][:3], tmp_path)
    if form == "torch":
        features = torch.export.load(tmp_path / file).module()(images)  # B M E
    else:
        from onnx.reference import ReferenceEvaluator

        program = ReferenceEvaluator(str(tmp_path / file))
        features = torch.from_numpy(program.run(None, {"images": images.numpy()})[0])
    settings = json.loads(metadata(tmp_path)["settings"])
    assert method == "CoOp" or settings["EVIDENCE_OFFSET"] == "image"  # as above
    p = probabilities_of(features, tmp_path)
    np.testing.assert_allclose(p.numpy(), expected["probabilities"][:3], atol=1e-5)


def test_onnx_without_its_packages_says_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    status, _, error = exported("CoOp", "--format", "onnx")
    assert status == 2 and "pip install 'causalclip[onnx]'" in error


@pytest.mark.parametrize("method", ["CoCoOp", "CIPT", "LinearProbe", "TipAdapter"])
def test_what_is_more_than_a_cosine_with_fixed_texts_is_refused(method, exported):
    status, names, error = exported(method)
    assert (status, names) == (2, [])
    assert f"{method} cannot be exported: it answers by more than" in error


def test_files_that_answer_otherwise_are_an_error(run, tmp_path, monkeypatch):
    right = exporting.class_features_of

    def wrong(trainer):
        return replace(right(trainer), text=right(trainer).text.flip(0))

    monkeypatch.setattr(exporting, "class_features_of", wrong)
    with pytest.raises(RuntimeError, match="exported files answer otherwise, by"):
        export(Predictor.load(run("CoOp")), tmp_path)


@pytest.mark.parametrize("method", ["CLIP_LoRA", "TwoSFS"])
def test_changed_weights_are_exported_as_a_whole_clip(method, run, recorded, exported, tmp_path):
    status, names, _ = exported(method)
    assert (status, names) == (0, ["classes.safetensors", "clip.pt"])
    predictor = Predictor.load(run(method))
    plain = copy.deepcopy(predictor.trainer.clip)
    plain.load_state_dict(torch.load(tmp_path / "clip.pt"))
    predictions = recorded(run(method))
    with torch.no_grad():
        features = plain.encode_image(pictures(predictions["path"][:8], tmp_path))
    answers = probabilities_of(features, tmp_path).numpy()
    np.testing.assert_allclose(answers, predictions["probabilities"][:8], atol=1e-5)
