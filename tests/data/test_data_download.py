"""causalclip/data/download.py: sets from a server on this machine, and from a fake Google Drive."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace as shrunk

import gdown
import pytest
import replicas

from causalclip.data.catalogue import CATALOGUE, facts_of
from causalclip.data.command import main
from causalclip.data.download import download, sort_terra_incognita
from causalclip.files import download as files
from causalclip.files.digests import Known


def test_a_download_ends_in_the_layout_without_its_archive(food, tmp_path):
    assert download(food, tmp_path, trust=True) == []
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    below = "food-101/images/pie/1.jpg", "food-101/README.txt", "food-101/split_zhou_Food101.json"
    assert found == set(below)


def test_what_drive_refuses_is_said_and_the_rest_is_not_fetched_twice(
    food, server, drive, tmp_path
):
    content = drive.pop("SPLIT")
    (failure,) = download(food, tmp_path, trust=True)
    assert "split_zhou_Food101.json" in failure and "drive.google.com/uc?id=SPLIT" in failure
    drive["SPLIT"] = content
    assert download(food, tmp_path, trust=True) == []
    assert len(server.asked) == 1


def test_without_a_connection_to_drive_the_file_to_fetch_by_hand_is_named(
    monkeypatch, tmp_path, capsys
):
    def unreachable(**_):
        raise ConnectionError("no route")

    monkeypatch.setattr(gdown, "download", unreachable)
    assert main(["download", "StanfordCars", "--trust", "--root", str(tmp_path)]) == 1
    split = tmp_path / "stanford_cars" / "split_zhou_StanfordCars.json"
    assert f"save it as {split}" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []  # nothing that looks like a data set


def test_what_cannot_be_verified_is_fetched_only_when_asked_for(food, tmp_path):
    (failure,) = download(food, tmp_path)
    assert failure.startswith("split_zhou_Food101.json: its owner publishes no checksum")
    assert "--trust" in failure
    replicas.put(tmp_path / "food-101" / "split_zhou_Food101.json", "{}")  # the user's own copy
    assert download(food, tmp_path) == []


def test_a_wrong_checksum_unpacks_nothing(food, tmp_path):
    archive, split = food.downloads
    wrong = shrunk(food, downloads=(shrunk(archive, known=Known(md5="0" * 32)), split))
    (failure,) = download(wrong, tmp_path, trust=True)
    assert "has md5" in failure and not (tmp_path / "food-101" / "images").exists()


def test_what_comes_from_drive_is_compared_as_well(food, tmp_path, drive):
    archive, split = food.downloads
    known = Known(sha256=hashlib.sha256(drive["SPLIT"]).hexdigest())
    checked = shrunk(food, downloads=(archive, shrunk(split, known=known)))
    content, drive["SPLIT"] = drive["SPLIT"], b"<html>virus warning</html>"
    (failure,) = download(checked, tmp_path)  # without --trust: it can be verified
    assert "uc?id=SPLIT has sha256" in failure and f"expected {known.sha256}" in failure
    assert not list(tmp_path.rglob("split_zhou*"))
    drive["SPLIT"] = content
    assert download(checked, tmp_path) == []


UNKNOWN = {
    "classnames.txt",
    "ImageNet-Sketch.zip",
    "split_zhou_Food101.json",
    "split_zhou_SUN397.json",
    "UCF-101-midframes.zip",
}


def test_all_but_five_files_can_be_verified_and_what_comes_by_http_always():
    fetched = [d for facts in CATALOGUE.values() for d in facts.downloads if d.url or d.drive]
    assert {d.file for d in fetched if not d.known} == UNKNOWN
    assert all(d.known.sha256 or d.known.md5 for d in fetched if d.url.startswith("http:"))
    assert all(d.url.startswith("https:") for d in facts_of("DomainBedDomainNet").downloads)
    for kind, digits in (("sha256", 64), ("md5", 32)):
        digests = {getattr(d.known, kind) for d in fetched} - {""}
        assert all(len(x) == digits and int(x, 16) for x in digests)


def write_terra(folder, *rows):
    """The cameras' annotations: file, location and the numbers of its classes."""
    content = {
        "info": {"year": 2018},
        "categories": [{"id": 1, "name": "bobcat"}, {"id": 2, "name": "car"}],
        "images": [{"id": file, "location": n, "file_name": file} for file, n, _ in rows],
        "annotations": [{"image_id": file, "category_id": c} for file, _, own in rows for c in own],
    }
    replicas.put(folder / "eccv_18_annotation_files" / "train.json", json.dumps(content))


def test_terra_incognita_is_sorted_by_location_and_class(tmp_path):
    replicas.put_images(tmp_path / "eccv_18_all_images_sm", ["a.jpg", "b.jpg", "c.jpg"])
    write_terra(tmp_path, ("a.jpg", 38, [1, 1]), ("b.jpg", 38, [2]), ("c.jpg", 7, [1]))
    sort_terra_incognita(tmp_path)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.jpg"))
    assert found == ["location_38/bobcat/a.jpg"]
    assert [p.name for p in tmp_path.iterdir()] == ["location_38"]  # folders count as domains


def test_terra_incognitas_annotations_name_images_of_its_folder_only(tmp_path):
    write_terra(tmp_path / "set", ("../../a.jpg", 38, [1]))
    with pytest.raises(ValueError, match=r"must name images below .*, got '\.\./\.\./a.jpg'"):
        sort_terra_incognita(tmp_path / "set")


@pytest.mark.parametrize("known", [Known(size=10), Known()])
def test_more_bytes_from_drive_than_expected_are_not_kept(
    food, tmp_path, drive, known, monkeypatch
):
    monkeypatch.setattr(files, "MOST_BYTES", 10)
    endless = shrunk(food, downloads=(shrunk(food.downloads[1], known=known),))
    (failure,) = download(endless, tmp_path, trust=True)
    assert f"more bytes than the 10 {'expected' if known else 'allowed'}; nothing is k" in failure
    assert list(tmp_path.iterdir()) == []
