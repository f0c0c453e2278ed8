"""scripts/data.py: the list, the checks, and downloads from a server on this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import importlib.util
import io
import json
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path

import gdown
import pytest
import replicas
from gdown.exceptions import FileURLRetrievalError

from causalclip.data import catalogue
from causalclip.data.bundled import MARKER
from causalclip.data.catalogue import BUNDLED, CATALOGUE, DOMAINBED, Download, facts_of
from causalclip.data.checking import check
from causalclip.data.download import download, sort_terra_incognita
from causalclip.files.archives import unpack
from causalclip.files.download import Known

SCRIPT = Path(__file__).parents[2] / "scripts" / "data.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("data_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


# list


def test_the_list_has_a_row_for_every_set_with_licence_and_source(main, tmp_path, capsys):
    replicas.eurosat(tmp_path)
    assert main(["--root", str(tmp_path), "list"]) == 0
    table = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in table if line}
    for name, facts in CATALOGUE.items():
        assert facts.licence in rows[name] and facts.page in rows[name]
    assert rows["EuroSAT"].endswith("yes") and rows["Food101"].endswith("no")
    assert rows["HandwrittenDigits"].endswith("on first use")


@pytest.mark.parametrize("command", [["list"], ["check", "all"], ["missing", "dtd"]])
def test_a_root_that_is_no_folder_is_said(main, monkeypatch, tmp_path, capsys, command):
    monkeypatch.setenv("DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert f"{tmp_path / 'nowhere'} is not a folder (DATA, or --root)" in capsys.readouterr().err


def test_missing_names_what_is_known_to_be_absent(main, tmp_path, capsys):
    replicas.eurosat(tmp_path)
    names = ["eurosat", "food101", "SUN397", "food101", "handwritten_digits", "my_own"]
    assert main(["--root", str(tmp_path), "missing", *names]) == 0
    assert capsys.readouterr().out.split() == ["food101", "SUN397"]


def test_without_a_root_the_list_still_comes_and_checks_say_what_to_set(main, monkeypatch, capsys):
    monkeypatch.delenv("DATA", raising=False)
    assert main(["list"]) == 0
    assert "DATA is not set" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["check", "all"])
    assert "set DATA to the folder of all data sets" in capsys.readouterr().err


def test_the_root_comes_from_the_environment(main, monkeypatch, tmp_path, capsys):
    replicas.eurosat(tmp_path)
    monkeypatch.setenv("DATA", str(tmp_path))
    assert main(["check", "EuroSAT"]) == 1
    assert "split_zhou_EuroSAT.json is missing" in capsys.readouterr().out


def test_every_set_is_known_by_its_configuration_too():
    assert facts_of("dtd") is facts_of("DescribableTextures") is facts_of("describabletextures")
    with pytest.raises(ValueError, match="must be one of ImageNet, Caltech101, .* got 'MNIST'"):
        facts_of("MNIST")


def test_every_configuration_of_a_real_set_is_in_the_catalogue():
    folder = SCRIPT.parents[1] / "configs" / "datasets"
    assert {path.stem for path in folder.glob("*.yaml")} == {f.config for f in CATALOGUE.values()}


# check: replicas with the counts of the replica in place of the published ones


def shrunk(facts, **counts):
    return dataclasses.replace(facts, **counts)


@pytest.fixture
def caltech(load, tmp_path):
    replicas.caltech101(tmp_path)
    load("Caltech101", tmp_path)  # makes the split
    return shrunk(facts_of("Caltech101"), classes=5, sizes=(27, 11, 16))


def test_a_whole_set_has_no_problems(caltech, tmp_path):
    split = json.loads((tmp_path / "caltech-101" / caltech.split_file).read_text())
    counted = shrunk(caltech, sizes=tuple(len(split[p]) for p in ("train", "val", "test")))
    assert check(counted, tmp_path) == []


def test_counts_that_differ_from_the_published_are_named(load, tmp_path, main, capsys):
    replicas.caltech101(tmp_path)
    load("Caltech101", tmp_path)
    assert main(["--root", str(tmp_path), "check", "Caltech101"]) == 1
    said = capsys.readouterr().out
    assert "5 classes, published 100" in said and "test images, published 2,465" in said
    assert "data download Caltech101" in said


NAMED_BY_PATH = [facts.name for facts in CATALOGUE.values() if facts.name_in_path]


@pytest.mark.parametrize("name", NAMED_BY_PATH)
def test_published_names_follow_from_the_paths_of_every_replica(load, name, tmp_path):
    replicas.LAYOUTS[name](tmp_path)
    load(name, tmp_path)  # makes the split, as CoOp names its classes
    facts = facts_of(name)
    path = tmp_path / facts.folder / facts.split_file
    assert not [p for p in check(facts, tmp_path) if "class names" in p]
    split = json.loads(path.read_text())
    wrong = split["train"][0][2]
    for row in (row for rows in split.values() for row in rows if row[2] == wrong):
        row[2] = "thing"
    path.write_text(json.dumps(split))
    (said,) = [p for p in check(facts, tmp_path) if "class names" in p]
    assert said == f"not the published class names (1): 'thing' for {wrong!r}"


def test_missing_images_are_counted_with_the_first_five(caltech, tmp_path):
    for path in sorted((tmp_path / "caltech-101").rglob("accordion/*.jpg"))[:7]:
        path.unlink()
    (said,) = [p for p in check(caltech, tmp_path) if "missing" in p]
    assert said.startswith("7 of ") and said.count("accordion/") == 5


def test_a_missing_split_file_and_image_folder_are_both_named(tmp_path):
    (tmp_path / "dtd").mkdir()
    said = check(facts_of("dtd"), tmp_path)
    assert "split_zhou_DescribableTextures.json is missing" in said[0]
    assert said[1].endswith("images is missing")


def test_decode_finds_files_that_are_no_images(caltech, tmp_path):
    path = next((tmp_path / "caltech-101").rglob("accordion/*.jpg"))
    path.write_bytes(b"no image")
    assert not [p for p in check(caltech, tmp_path) if "cannot be read" in p]
    (said,) = [p for p in check(caltech, tmp_path, decode=True) if "cannot be read" in p]
    assert path.name in said


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ImageNet", {"classes": 4, "sizes": (38, None, 12)}),
        ("ImageNetV2", {"classes": 4, "sizes": (None, None, 8)}),
        ("ImageNetR", {"classes": 2, "sizes": (None, None, 6)}),
        ("FGVCAircraft", {"classes": 3, "sizes": (9, 9, 9)}),
    ],
)
def test_replicas_of_other_layouts_are_whole(tmp_path, name, counts):
    replicas.LAYOUTS[name](tmp_path)
    assert check(shrunk(facts_of(name), **counts), tmp_path) == []
    fewer = shrunk(facts_of(name), **{**counts, "classes": 9})
    assert len(check(fewer, tmp_path)) == (2 if name == "ImageNet" else 1)


@pytest.mark.parametrize("facts", DOMAINBED, ids=lambda facts: facts.name)
def test_domain_sets_are_checked_domain_by_domain(tmp_path, facts):
    replicas.domains(tmp_path / facts.folder, facts.domains, ["ant", "bee"])
    names = facts.class_names and ("ant", "bee")
    counted = shrunk(facts, classes=2, images=21 * len(facts.domains), class_names=names)
    assert check(counted, tmp_path) == []
    if facts.class_names:
        other = shrunk(counted, class_names=("ant", "cat"))
        assert check(other, tmp_path) == ["classes bee, published ant, cat"]
    for path in (tmp_path / facts.folder / facts.domains[0] / "ant").iterdir():
        path.unlink()
    said = check(counted, tmp_path)
    assert said[0] == f"domain {facts.domains[0]} has no image of ant" and len(said) == 2


def test_check_all_passes_over_absent_sets(main, tmp_path, capsys):
    assert main(["--root", str(tmp_path), "check", "all"]) == 0
    assert "Food101: not present" in capsys.readouterr().out


# sets that are drawn on first use


@pytest.fixture
def drawn(tmp_path):
    """Five pictures in each of two looks, as `facts` say, below the root `tmp_path`."""
    facts = shrunk(facts_of("HandwrittenDigits"), looks=("ink", "chalk"), pictures=5)
    folder = tmp_path / facts.folder
    for look in facts.looks:
        replicas.put_images(folder / look, [f"zero/{i}.jpg" for i in range(3)])
        replicas.put_images(folder / look, [f"one/{i}.jpg" for i in range(2)])
    for file in (MARKER, facts.split_file):
        (folder / file).write_text("{}")
    return facts


@pytest.mark.parametrize("name", [facts.name for facts in BUNDLED])
def test_a_set_that_is_not_drawn_yet_is_said_to_be_absent_and_is_no_fault(
    main, tmp_path, capsys, name
):
    assert main(["--root", str(tmp_path), "check", name, "--decode"]) == 0
    assert capsys.readouterr().out == f"{name}: not present (drawn on first use)\n"


def test_a_drawn_set_as_it_was_drawn_has_no_problems(drawn, tmp_path):
    assert check(drawn, tmp_path, decode=True) == []


def test_a_drawn_set_names_the_looks_and_pictures_that_are_gone(drawn, tmp_path):
    gone = sorted((tmp_path / drawn.folder / "ink").rglob("*.jpg"))[:4]
    for path in gone:
        path.unlink()
    counted, named = check(drawn, tmp_path)
    assert counted.startswith("1 of the 5 pictures are in ") and counted.endswith("ink")
    assert all(f"{path.parent.name}/{path.name}" in named for path in gone)


def test_a_picture_that_is_gone_in_every_look_is_counted(drawn, tmp_path):
    for path in (tmp_path / drawn.folder).rglob("zero/*.jpg"):
        path.unlink()
    assert ["2 of the 5 pictures" in said for said in check(drawn, tmp_path)] == [True, True]


def test_a_look_and_the_files_beside_it_are_missed(drawn, tmp_path):
    folder = tmp_path / drawn.folder
    shutil.rmtree(folder / "chalk")
    (folder / MARKER).unlink()
    (folder / drawn.split_file).unlink()
    said = "\n".join(check(drawn, tmp_path))
    for what in (f"{MARKER} is missing", f"{drawn.split_file} is missing", "0 of the 5 pictures"):
        assert what in said


def test_decode_finds_a_drawn_picture_that_is_cut_off(drawn, tmp_path):
    path = next((tmp_path / drawn.folder / "chalk").rglob("*.jpg"))
    path.write_bytes(path.read_bytes()[:20])
    (said,) = check(drawn, tmp_path, decode=True)
    assert path.name in said and "cannot be read" in said


def test_a_damaged_drawn_set_is_to_be_removed_not_downloaded(
    main, drawn, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(catalogue.CATALOGUE, drawn.name, shrunk(drawn, pictures=6))
    assert main(["--root", str(tmp_path), "check", drawn.name]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{drawn.name}: not as drawn")
    assert f"Remove {tmp_path / drawn.folder} to have it drawn again" in said
    assert "download" not in said


def test_a_drawn_set_is_not_downloaded_and_leaves_no_empty_folder(main, tmp_path, capsys):
    assert main(["--root", str(tmp_path), "download", "CausalShapes"]) == 0
    assert "nothing to download" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


# download


def tar_of(files, **special):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, (kind, link) in special.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """Serves a folder; `server.asked` lists the paths that were requested."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path_factory.mktemp("served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, template, *args):
            self.server.asked.append(args[0])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.folder = [], folder
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def drive(monkeypatch):
    """Google Drive as a dictionary: id -> content."""
    files = {}

    def fake(*, id, output, resume):
        if id not in files:
            raise FileURLRetrievalError("too many users have viewed this file")
        return str(replicas.put(Path(output), files[id]))

    monkeypatch.setattr(gdown, "download", fake)
    return files


@pytest.fixture
def food(server, drive):
    archive = tar_of({"food-101/images/pie/1.jpg": replicas.JPEG, "food-101/README.txt": b"hello"})
    (server.folder / "food-101.tar.gz").write_bytes(archive)
    drive["SPLIT"] = b'{"train": [], "val": [], "test": []}'
    return shrunk(
        facts_of("Food101"),
        downloads=(
            Download(
                "food-101.tar.gz",
                url=f"{server.url}/food-101.tar.gz",
                known=Known(md5=hashlib.md5(archive).hexdigest()),
                unpack=True,
                move=(("food-101", "."),),
            ),
            Download("split_zhou_Food101.json", drive="SPLIT"),
        ),
    )


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
    main, monkeypatch, tmp_path, capsys
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
    wrong = shrunk(food, downloads=(dataclasses.replace(archive, known=Known(md5="0" * 32)), split))
    (failure,) = download(wrong, tmp_path, trust=True)
    assert "has md5" in failure and not (tmp_path / "food-101" / "images").exists()


def test_what_comes_from_drive_is_compared_as_well(food, tmp_path, drive):
    archive, split = food.downloads
    known = Known(sha256=hashlib.sha256(drive["SPLIT"]).hexdigest())
    checked = shrunk(food, downloads=(archive, dataclasses.replace(split, known=known)))
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


def test_the_command_downloads_by_name_only_and_reports_what_is_left(
    main, food, monkeypatch, tmp_path, capsys, drive, server
):
    monkeypatch.setitem(catalogue.CATALOGUE, "Food101", food)
    assert main(["--root", str(tmp_path), "download", "food101", "--trust"]) == 0
    assert "2 of 2 files" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["food-101"]
    drive.clear()
    assert main(["--root", str(tmp_path), "download", "StanfordCars"]) == 1
    said = capsys.readouterr().out
    assert "By hand: The owner's links are dead" in said and "0 of 1 files" in said
    assert main(["--root", str(tmp_path), "download", "MNIST"]) == 2


@pytest.mark.parametrize(
    ("files", "special"),
    [
        ({"../evil.txt": b""}, {}),
        ({"/evil.txt": b""}, {}),
        ({"ok/../../evil.txt": b""}, {}),
        ({}, {"link": (tarfile.SYMTYPE, "../outside")}),
        ({}, {"link": (tarfile.SYMTYPE, "/etc/passwd")}),
        ({}, {"link": (tarfile.LNKTYPE, "../outside")}),
        ({}, {"pipe": (tarfile.FIFOTYPE, "")}),
    ],
)
def test_a_tar_that_leaves_its_folder_is_refused_whole(tmp_path, files, special):
    archive = replicas.put(tmp_path / "a.tar.gz", tar_of({"first.txt": b"", **files}, **special))
    with pytest.raises(ValueError, match="must (stay in its folder|hold files and folders only)"):
        unpack(archive, tmp_path / "target", most_bytes=1000)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_link_inside_the_folder_is_no_plain_file_either(tmp_path):
    content = tar_of({"a/b.txt": b"text"}, **{"a/c.txt": (tarfile.SYMTYPE, "b.txt")})
    archive = replicas.put(tmp_path / "a.tar.gz", content)
    with pytest.raises(ValueError, match="got 'a/c.txt', a link or a device; nothing unpacked"):
        unpack(archive, tmp_path / "target", most_bytes=1000)


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_a_zip_that_leaves_its_folder_is_refused_whole(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("first.txt", "")
        archive.writestr(name, "")
    with pytest.raises(ValueError, match="must stay in its folder"):
        unpack(tmp_path / "a.zip", tmp_path / "target", most_bytes=1000)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_an_html_page_instead_of_an_archive_is_named(tmp_path):
    page = replicas.put(tmp_path / "a.zip", "<html>quota exceeded</html>")
    with pytest.raises(ValueError, match="a.zip must be a .zip or .tar archive"):
        unpack(page, tmp_path, most_bytes=1000)


def test_terra_incognita_is_sorted_by_location_and_class(tmp_path):
    replicas.put_images(tmp_path / "eccv_18_all_images_sm", ["a.jpg", "b.jpg", "c.jpg"])
    content = {
        "info": {"year": 2018},
        "categories": [{"id": 1, "name": "bobcat"}, {"id": 2, "name": "car"}],
        "images": [
            {"id": "a", "location": 38, "file_name": "a.jpg"},
            {"id": "b", "location": 38, "file_name": "b.jpg"},
            {"id": "c", "location": 7, "file_name": "c.jpg"},
        ],
        "annotations": [
            {"image_id": "a", "category_id": 1},
            {"image_id": "a", "category_id": 1},
            {"image_id": "b", "category_id": 2},
            {"image_id": "c", "category_id": 1},
        ],
    }
    replicas.put(tmp_path / "eccv_18_annotation_files" / "train.json", json.dumps(content))
    sort_terra_incognita(tmp_path)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.jpg"))
    assert found == ["location_38/bobcat/a.jpg"]
    assert [p.name for p in tmp_path.iterdir()] == ["location_38"]  # folders count as domains


def test_terra_incognitas_annotations_name_images_of_its_folder_only(tmp_path):
    content = {
        "categories": [{"id": 1, "name": "bobcat"}],
        "images": [{"id": "a", "location": 38, "file_name": "../../a.jpg"}],
        "annotations": [{"image_id": "a", "category_id": 1}],
    }
    replicas.put(tmp_path / "set" / "eccv_18_annotation_files" / "t.json", json.dumps(content))
    with pytest.raises(ValueError, match=r"must name images below .*, got '\.\./\.\./a.jpg'"):
        sort_terra_incognita(tmp_path / "set")
