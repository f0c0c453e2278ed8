"""`causalclip data splits` writes what a training sees, with checksums."""

from __future__ import annotations

import hashlib
import json

from causalclip.runs.splits_command import main


def test_the_files_hold_the_images_of_a_training(data_root, make_trainer, tmp_path, capsys):
    words = "handwritten_digits --seeds 1 --shots 1 2".split()
    assert main([*words, "--data", str(data_root), "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"2 splits and SHA256SUMS in {tmp_path}\n"
    content = (tmp_path / "handwritten_digits" / "shot_2-seed_1.json").read_bytes()
    rows = json.loads(content)
    options = ("SEED", 1, "DATASET.NUM_SHOTS", 2, "DATASET.SUBSAMPLE_CLASSES", "all")
    dataset = make_trainer("ZeroshotCLIP", tmp_path / "run", *options).dm.dataset
    for part, items in (("train", dataset.train_x), ("val", dataset.val), ("test", dataset.test)):
        seen = [(item.impath, item.label, item.classname) for item in items]
        assert [(str(data_root / path), *more) for path, *more in rows[part]] == seen
    line = f"{hashlib.sha256(content).hexdigest()}  handwritten_digits/shot_2-seed_1.json"
    assert line in (tmp_path / "SHA256SUMS").read_text().splitlines()


def test_an_unknown_set_is_named(tmp_path, capsys):
    assert main(["handwriten_digits", "--output", str(tmp_path)]) == 2
    assert "did you mean handwritten_digits" in capsys.readouterr().err
