"""A made-up study with everything that a page can show, and its page, drawn once."""

from __future__ import annotations

import html.parser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from causalclip.metrics import classification_metrics
from causalclip.page.command import Renderer
from causalclip.page.study import Study
from causalclip.records.predictions import Predictions
from causalclip.records.results import Result

NASTY = '<script>alert("1")</script>'
NAMES = [NASTY, 'o\'clock & "co"', "a_b $x$"]


def made_up_arrays(seed, n, classes, *, templates=0):
    """The arrays of a predictions.npz, without paths."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    logits = rng.normal(size=(max(templates, 1), n, classes)) + np.eye(classes)[labels]
    each = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    p = each.mean(0).astype(np.float32)
    arrays = {"label": labels, "probabilities": p, "prediction": p.argmax(-1)}
    arrays |= {"uncertainty": 1 - p.max(-1).astype(float)}
    arrays |= {"plain/probabilities": each[0].astype(np.float32)}
    arrays |= {"plain/uncertainty": 1 - each[0].max(-1)}
    if templates:
        arrays["template_probabilities"] = each.transpose(1, 0, 2).astype(np.float32)
        arrays["template_uncertainty"] = 1 - each.max(-1).T
        arrays["conflict"] = each.std(0).max(-1)
    return arrays


@pytest.fixture(scope="session")
def write_one():
    """Write one result with its predictions; `root/folder` is where."""

    def write(root, folder, *, n=40, templates=0, pictures=None, names=NAMES, **more):
        seed = more.setdefault("seed", 1)
        arrays = made_up_arrays(seed, n, len(names), templates=templates)
        place = Path(pictures or root / "moved")
        arrays["path"] = np.array([str(place / f"{row}.png") for row in range(n)])
        p, labels, u = (arrays[name] for name in ("probabilities", "label", "uncertainty"))
        metrics = classification_metrics(p, labels, u)
        record = {"schema": 2, "trainer": "CDC", "config_name": "tiny_m4", "backbone": "tiny"}
        record |= {"dataset": "Set", "shots": 16, "classnames": names, "metrics": metrics}
        record |= {"time": "2026-01-02T03:04:05+00:00", "variants": {"plain": metrics}}
        record |= {"members": {"template": [metrics] * templates} if templates else {}}
        Result.of_record(record | more).write(root / folder)
        Predictions(arrays).write(root / folder)
        return root / folder

    return write


CURVE = {"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.5], "accuracy": [50.0, 70.0, 80.0]}
CELL = {"estimator": "difference", "orthonormal": True, "accuracies": [50.0]}
HEAD = {
    "choice": {"estimator": "difference", "strength": 1.0, "dim_inv": 2, "orthonormal": True},
    "grid": [
        {**CELL, "strength": s, "dim_inv": k, "mean": 10 * s + k}
        for s in (0.1, 1.0)
        for k in (1, 2)
    ],
    "spectrum": [3.0, 1.0, 0.5],
    "feature_energy_kept": 0.9,
    "intervention_energy_kept": 0.25,
    "certainty": {"resamples": 5, "angle_50": 10.0, "angle_95": 30.0, "gap": 1.0, "bound": None},
}


@pytest.fixture(scope="session")
def study_root(tmp_path_factory, write_one):
    """A base-to-novel pair of CDC, two domains of CLIP_ICM, and three files that are broken."""
    root = tmp_path_factory.mktemp("study")
    pictures = root / "pictures"
    pictures.mkdir()
    for row in range(20):  # of 40: the others have moved
        Image.new("RGB", (32, 32), (12 * row, 0, 200)).save(pictures / f"{row}.png")
    (pictures / "3.png").write_bytes(b"cut")
    pair = {"templates": 4, "pictures": pictures, "protocol": "base2new"}
    training = {"seconds": 3.0, "epochs": 3, "curve": CURVE}
    write_one(root, "base", subsample_classes="base", training=training, **pair)
    write_one(root, "new", subsample_classes="new", n=30, **pair)
    for number, domain in enumerate(("art", "photo"), start=1):
        icm = {"trainer": "CLIP_ICM", "config_name": "tiny", "protocol": "lodo"}
        icm |= {"target_domains": [domain], "details": {"heads": {"zeroshot": HEAD}}}
        write_one(root, f"lodo/{domain}", n=30 + number, pictures=pictures, **icm)
    explained = root / "base" / "explained"
    explained.mkdir()
    description = PngInfo()
    description.add_text("Description", f"x.png: {NASTY}, p 0.9; what speaks for it")
    Image.new("RGB", (1980, 380), "white").save(explained / "x.gradient.png", pnginfo=description)
    (explained / "y.gradient.png").write_bytes(b"cut")
    cut = write_one(root, "lodo_cut", protocol="lodo", target_domains=["art"], trainer="CoOp")
    (cut / "predictions.npz").write_bytes((cut / "predictions.npz").read_bytes()[:200])
    for name, text in (("empty", ""), ("newer", '{"schema": 99}')):
        (root / name).mkdir()
        (root / name / "results.json").write_text(text)
    return root


@pytest.fixture(scope="session")
def study(study_root):
    return Study.read(study_root)


@pytest.fixture(scope="session")
def page(study, tmp_path_factory):
    """The file of its page."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(Renderer(images=25).page(study), encoding="utf-8")
    return path


class Outline(html.parser.HTMLParser):
    """The text of a page, and every start tag with its attributes."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(source)
        self.close()
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="session")
def outline(page):
    return Outline(page.read_text())
