"""Data sets in the Hugging Face Hub's formats become a table with their splits and class names."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from causalclip.data.hub_card import HubFolder  # noqa: E402
from causalclip.data.hub_tables import HubRow, complete, download_dataset, unpack_dataset  # noqa: E402
from causalclip.datasets.table import label_rows, read_table  # noqa: E402
from causalclip.errors import UserError  # noqa: E402

NAMES = ["zebra", "ape"]  # not in alphabetical order
FEATURES = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
CARD = """---
license: mit
{configs}dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': zebra
          '1': ape
---
# A card
"""


def png(number):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_parquet(path, labels, *, features=FEATURES, first=0, **columns):
    """Write images, red from `first` on, with labels."""
    images = [{"bytes": png(first + i), "path": f"{i}.png"} for i in range(len(labels))]
    table = pa.table({"image": images, "label": labels, **columns})
    if features:
        metadata = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": metadata})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def read(folder, **wanted):
    """(split, label, class name, red) of each image of the unpacked table."""
    table = unpack_dataset(HubFolder.read(folder, **wanted), "set")
    frame = label_rows(read_table(table), table)
    reds = [Image.open(path).getpixel((0, 0))[0] for path in frame["path"]]
    return sorted(zip(frame["split"], frame["label"], frame["classname"], reds, strict=True))


def test_parquet_files_give_images_names_and_parts(tmp_path):
    write_parquet(tmp_path / "data/train-00000-of-00002.parquet", [0, 1])
    write_parquet(tmp_path / "data/train-00001-of-00002.parquet", [1], first=2)
    write_parquet(tmp_path / "data/validation-00000-of-00001.parquet", [0], first=3)
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", [1, -1, None], first=4)
    write_parquet(tmp_path / ".cache/train.parquet", [0], first=9)
    assert read(tmp_path) == [
        ("test", 1, "ape", 4),  # those after it have no label
        ("train", 0, "zebra", 0),
        ("train", 1, "ape", 1),
        ("train", 1, "ape", 2),
        ("val", 0, "zebra", 3),
    ]


def test_the_table_is_kept_until_the_files_change(tmp_path):
    file = tmp_path / "data/train.parquet"
    write_parquet(file, [0, 1] * 10)
    first = unpack_dataset(HubFolder.read(tmp_path), "set")
    time = first.stat().st_mtime_ns
    assert unpack_dataset(HubFolder.read(tmp_path), "set") == first
    assert first.stat().st_mtime_ns == time
    write_parquet(file, [0, 1] * 11)
    assert unpack_dataset(HubFolder.read(tmp_path), "set") != first


def test_the_card_names_classes_and_files_of_splits(tmp_path):
    configs = """configs:
- config_name: default
  data_files:
  - split: train
    path: a/*.parquet
  - split: test
    path: [b/*.parquet]
  - split: extra
    path: c/*.parquet
"""
    (tmp_path / "README.md").write_text(CARD.format(configs=configs))
    for place, first in (("a", 0), ("b", 5), ("c", 7)):
        write_parquet(tmp_path / place / "0000.parquet", [0, 1], features=None, first=first)
    assert read(tmp_path) == [
        ("test", 0, "zebra", 5),
        ("test", 1, "ape", 6),
        ("train", 0, "zebra", 0),
        ("train", 1, "ape", 1),
    ]


def test_of_several_subsets_one_is_to_be_named(tmp_path):
    configs = "configs:\n- config_name: big\n  data_dir: b\n- config_name: small\n  data_dir: s\n"
    (tmp_path / "README.md").write_text(CARD.format(configs=configs))
    for place in ("b", "s"):
        for part, first in (("train", 0), ("test", 2)):
            write_parquet(tmp_path / place / f"{part}.parquet", [0, 1], first=first)
    with pytest.raises(ValueError, match="has the subsets big small: name one, hf:OWNER/NAME/SUB"):
        HubFolder.read(tmp_path)
    with pytest.raises(ValueError, match="name one, hf:OWNER/NAME/SUBSET, got tiny"):
        HubFolder.read(tmp_path, subset="tiny")
    assert [row[3] for row in read(tmp_path, subset="small")] == [2, 3, 0, 1]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("numbers", [False, True])
def test_metadata_name_pictures_and_labels(tmp_path, kind, numbers):
    (tmp_path / "README.md").write_text(CARD.format(configs="") if numbers else "no card")
    for part, first in (("train", 0), ("test", 8)):
        (tmp_path / part / "in").mkdir(parents=True)
        rows = []
        for i in range(4):
            (tmp_path / part / "in" / f"test {i}.png").write_bytes(png(first + i))
            label = i % 2 if numbers else NAMES[i % 2]
            rows.append({"file_name": f"in/test {i}.png", "label": label})
        lines = map(json.dumps, rows)
        if kind == "csv":
            lines = ["file_name,label", *(f"{r['file_name']},{r['label']}" for r in rows)]
        (tmp_path / part / f"metadata.{kind}").write_text("\n".join(lines))
    found = read(tmp_path)
    zebra = 0 if numbers else 1  # declared first, but last in the alphabet
    assert ("test", zebra, "zebra", 8) in found
    assert {row[0] for row in found if row[3] < 4} == {"train"}
    assert len(found) == 8


def test_missing_parts_are_cut_from_the_training_images():
    rows = [HubRow("train", f"{i}", i % 2, "ab"[i % 2]) for i in range(40)]
    others = [HubRow("val", f"v{i}", i % 2, "ab"[i % 2]) for i in range(6)]

    def sizes(rows):
        done = complete(rows, "here")
        assert {row.path for row in done} == {row.path for row in rows}
        return [sum(row.part == part for row in done) for part in ("train", "val", "test")]

    assert sizes(rows) == [20, 8, 12]
    assert sizes(rows + others) == [32, 8, 6]  # they test
    assert sizes(rows + [row._replace(part="test") for row in others]) == [32, 8, 6]
    with pytest.raises(ValueError, match=r"here must have labelled images .* got \{'val': 6\}"):
        complete(others, "here")


def test_a_domain_column_reaches_the_table(tmp_path):
    domain = ["ink", "oil"] * 10
    write_parquet(tmp_path / "train.parquet", [0] * 10 + [1] * 10, domain=domain)
    table = read_table(unpack_dataset(HubFolder.read(tmp_path), "set"))
    assert set(table[table.split == "test"]["domain"]) == {"ink", "oil"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": None}, "train.parquet, row 1: label must be a class name, as nothing names"),
        ({"labels": [0, 2]}, "row 2: label must be a class name or a number below 2, got 2"),
        ({"label": "kind"}, "row 1 has no kind; it has image, label"),
        (
            {
                "features": {"a": FEATURES["label"], "b": FEATURES["label"]},
                "a": [0, 1],
                "b": [0, 1],
            },
            "must have one column label, found a, b: name one, hf:OWNER/NAME:COLUMN",
        ),
        (
            {"features": {"label": 3}, "labels": ["x", "y"], "image": ["../x.png"] * 2},
            "row 1: image must be an image, or a path below its folder, got {'path': '../x.png'}",
        ),
        ({"features": {"label": {"_type": "ClassLabel", "names": 3}}}, "is damaged or no Parquet"),
    ],
)
def test_a_wrong_column_is_named(tmp_path, change, said):
    label = change.pop("label", "")
    change = {"labels": [0, 1], **change}
    write_parquet(tmp_path / "train.parquet", **change)
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        unpack_dataset(HubFolder.read(tmp_path, label=label), "set")


def test_damaged_files_are_named(tmp_path):
    file = tmp_path / "train.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="train.parquet is damaged or no Parquet file"):
        unpack_dataset(HubFolder.read(tmp_path), "set")
    file.unlink()
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "label": "a"}\n{"file_na')
    with pytest.raises(ValueError, match="metadata.jsonl is damaged: "):
        unpack_dataset(HubFolder.read(tmp_path), "set")
    (tmp_path / "README.md").write_text("---\nconfigs: [1]\n---\n")
    with pytest.raises(ValueError, match="README.md: configs and dataset_info must be in the hub"):
        HubFolder.read(tmp_path)


def test_data_sets_of_the_hub_are_downloaded(hub):
    repository = hub / "datasets" / "someone" / "pets"
    for part in ("train", "test"):
        write_parquet(repository / "data" / f"{part}-00000-of-00001.parquet", [0, 1] * 5)
    (repository / "notes.zip").write_bytes(b"large")
    table = download_dataset("someone/pets")
    assert len(read_table(table)) == 20
    assert "someone-pets" in str(table)
    assert not list(hub.parent.rglob("cache/**/notes.zip"))
    with pytest.raises(UserError, match="the hub has no dataset someone/petz for you"):
        download_dataset("someone/petz")
    with pytest.raises(UserError, match="dataset someone/pets on the hub has no revision v9"):
        download_dataset("someone/pets@v9")
    with pytest.raises(UserError, match="hf:OWNER/NAME, .* got hf:pets"):
        download_dataset("pets")


def test_class_folders_of_the_hub_are_linked(hub):
    for part in ("train", "test"):
        for name in NAMES:
            folder = hub / "datasets" / "someone" / "pets" / part / name
            folder.mkdir(parents=True)
            for i in range(5):
                (folder / f"{i}.JPG").write_bytes(png(i))
    frame = read_table(download_dataset("someone/pets"))
    assert frame.groupby("split").size().to_dict() == {"test": 10, "train": 8, "val": 2}
    (hub / "datasets" / "someone" / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no labelled image in Parquet files"):
        download_dataset("someone/empty")


# In the folder of a checkout, whose `datasets` is not the package of that name.
CODE = """
import sys
sys.path.insert(0, "")
import datasets
assert not hasattr(datasets, "load_dataset")
from causalclip import Predictor
from causalclip.runs.data_source import resolve_data
print(resolve_data(sys.argv[1]).settings["DATASET.NAME"])
for get in (Predictor.load, lambda name: resolve_data(f"hf:{name}")):
    try:
        get("someone/nothing")
    except Exception as error:
        print(error)
"""


def test_the_hub_works_in_a_checkout(tmp_path):
    pytest.importorskip("huggingface_hub")
    write_parquet(tmp_path / "train.parquet", [0, 1] * 10)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    table, *errors = done.stdout.splitlines()
    assert table == "Table"
    for kind, error in zip(("model", "dataset"), errors, strict=True):
        assert error.startswith(f"no {kind} someone/nothing in the cache, and none from http")
