"""Exported files answer as the run does, read by nothing of ours."""

from __future__ import annotations

import json
import sys

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
from causalclip.predict import export_command
from causalclip.predict.export import export

ICM = ["TRAINER.CLIP_ICM.INTERVENTIONS", "BOTH", "TRAINER.CLIP_ICM.PROBE_TEXTS", "True"]


def picture(path: str, facts: dict) -> torch.Tensor:
    """The image as the metadata say that it is read; it has the right size already."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(facts[key]).view(3, 1, 1) for key in ("mean", "std"))
    return ((pixels - mean) / std)[None]


def facts_of(path) -> dict:
    """The metadata of a safetensors file."""
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def probabilities_of(features: torch.Tensor, path) -> torch.Tensor:
    """What docs/predict.md makes of image features (B, E), or (B, M, E) of CDC, and the classes."""
    tensors, details = load_file(path), json.loads(facts_of(path)["details"])
    z = features / features.norm(dim=-1, keepdim=True)
    if features.dim() == 2:
        return (tensors["logit_scale"] * z @ tensors["text"].T).softmax(-1)
    logits = tensors["logit_scale"] * torch.einsum("bme,mke->bmk", z, tensors["text"])
    evidence = evidence_from_logits(logits, logits.mean(-1, keepdim=True)).double()
    return probabilities(fuse(evidence, discount=details["discount"]))


@pytest.mark.parametrize(("method", "options"), [("CoOp", []), ("CLIP_ICM", ICM)])
def test_class_features_are_all_a_text_method_needs(
    method, options, run, recorded, random_clip, tmp_path, capsys
):
    folder = run(method, *options)
    assert export_command.main([str(folder), "--output", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["classes.safetensors"]
    assert "classes.safetensors: checked" in capsys.readouterr().out
    tensors, facts = (f(tmp_path / "classes.safetensors") for f in (load_file, facts_of))
    assert json.loads(facts["classnames"]) == ["zero", "one", "two", "three", "four"]
    there = recorded(folder)
    image = picture(there["path"][7], json.loads(facts["image"]))
    with torch.no_grad():
        z = load_clip(random_clip).encode_image(image)
        if "projection" in tensors:
            z = z @ tensors["projection"]
        z = z / z.norm(dim=-1, keepdim=True)
        p = (tensors["logit_scale"] * z @ tensors["text"].T).softmax(-1)
    np.testing.assert_allclose(p[0].numpy(), there["probabilities"][7], atol=1e-5)


def test_a_tower_with_deep_prompts_is_exported_as_a_program(run, recorded, tmp_path):
    folder = run("CDC")
    there = recorded(folder)
    paths = export(Predictor.load(folder), tmp_path)
    assert [path.name for path in paths] == ["classes.safetensors", "image.pt2"]
    facts = facts_of(paths[0])
    image = json.loads(facts["image"])
    images = torch.cat([picture(path, image) for path in there["path"][:3]])
    features = torch.export.load(paths[1]).module()(images)  # (B, M, E)
    settings = json.loads(facts["settings"])
    assert (settings["EVIDENCE_OFFSET"], settings["FUSION"]) == ("image", "discounted")
    p = probabilities_of(features, paths[0])
    np.testing.assert_allclose(p.numpy(), there["probabilities"][:3], atol=1e-5)


@pytest.mark.parametrize("method", ["CDC", "CoOp"])
def test_in_onnx_the_image_side_of_any_method_needs_no_clip(
    method, run, recorded, tmp_path, capsys
):
    pytest.importorskip("onnxscript", reason="no onnxscript: pip install causalclip[onnx]")
    from onnx.reference import ReferenceEvaluator

    folder = run(method)
    there = recorded(folder)
    assert export_command.main([str(folder), "--format", "onnx", "--output", str(tmp_path)]) == 0
    assert "image.onnx: checked" in capsys.readouterr().out
    facts = json.loads(facts_of(tmp_path / "classes.safetensors")["image"])
    images = torch.cat([picture(path, facts) for path in there["path"][:3]])
    program = ReferenceEvaluator(str(tmp_path / "image.onnx"))
    features = torch.from_numpy(program.run(None, {"images": images.numpy()})[0])
    p = probabilities_of(features, tmp_path / "classes.safetensors")
    np.testing.assert_allclose(p.numpy(), there["probabilities"][:3], atol=1e-5)


def test_onnx_without_its_packages_says_what_to_install(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert (
        export_command.main([str(run("CoOp")), "--format", "onnx", "--output", str(tmp_path)]) == 2
    )
    assert "pip install 'causalclip[onnx]'" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["CoCoOp", "LinearProbe", "TipAdapter"])
def test_what_is_more_than_a_cosine_with_fixed_texts_is_refused(method, run, tmp_path, capsys):
    assert export_command.main([str(run(method)), "--output", str(tmp_path)]) == 2
    assert f"{method} cannot be exported: it answers by more than" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_files_that_answer_otherwise_are_an_error(run, tmp_path, monkeypatch):
    right = exporting.classes_of

    def wrong(trainer):
        classes = right(trainer)
        return exporting.Classes(classes.text.flip(0), classes.logit_scale)

    monkeypatch.setattr(exporting, "classes_of", wrong)
    with pytest.raises(RuntimeError, match="exported files answer otherwise, by"):
        export(Predictor.load(run("CoOp")), tmp_path)
