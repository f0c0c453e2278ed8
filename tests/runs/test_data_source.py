"""Names, folders and files of data sets become settings, or an error with what was expected."""

from __future__ import annotations

import pytest
from PIL import Image

from causalclip import plugin
from causalclip.errors import UserError
from causalclip.runs.data_source import resolve_data


@pytest.fixture(autouse=True, scope="module")
def registered():
    plugin.register_all()


@pytest.fixture
def write(tmp_path):
    """A function that writes files below photos/, images and texts; returns the folder."""

    def write(*names: str, **texts: str):
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(folder / name)
        for name, text in texts.items():
            (folder / name.replace("_", ".")).write_text(text)
        return folder

    return write


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["cat/a.png", "dog/a.png"], "ImageFolder"),
        (["train/cat/a.png", "test/cat/a.png"], "ImageFolder"),
        (["train/cat/a.png", "val/cat/a.png", "test/cat/a.png"], "ImageFolder"),
        (["Training/cat/a.png", "Test/cat/a.png"], "ImageFolder"),
        (["ink/cat/a.png", "chalk/cat/a.png"], "DomainFolder"),
    ],
)
def test_a_folder_is_taken_by_its_layout(files, kind, write, tmp_path):
    source = resolve_data(write(*files))
    assert source.name == "photos"
    assert source.path == tmp_path / "photos"
    expected = {"NAME": kind, "ROOT": str(tmp_path), "PATH": "photos"}
    assert source.settings == {f"DATASET.{key}": value for key, value in expected.items()}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "found nothing"),
        (["a.png"], "found images in one folder: a.png"),
        (["cat/a.png", "ink/cat/a.png"], "found folders of images: cat; folders of folders of"),
        (["ink/cat/deep/a.png"], "found folders without images: ink"),
    ],
)
def test_a_folder_of_another_layout_says_what_it_holds_and_what_is_read(files, found, write):
    with pytest.raises(UserError, match=r"CLASS/IMAGE, .*DOMAIN/CLASS/IMAGE, " + found):
        resolve_data(write(*files))


def test_parts_without_test_images_are_refused(write):
    with pytest.raises(ValueError, match=r"must hold train/ and test/ .* it holds dev, train"):
        resolve_data(write("train/cat/a.png", "dev/cat/a.png"))


def test_a_name_is_a_configuration_or_a_registered_set_and_comes_before_a_folder(
    tmp_path, monkeypatch
):
    for variable, root in (("/big", "/big"), ("", "data")):
        monkeypatch.setenv("DATA", variable)
        assert resolve_data("dtd").settings["DATASET.ROOT"] == root
    (tmp_path / "dtd").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("dtd", "DescribableTextures"):
        source = resolve_data(name, "/data")
        expected = {"DATASET.NAME": "DescribableTextures", "DATASET.ROOT": "/data"}
        assert (source.name, source.settings, source.path) == (name, expected, None)
    with pytest.raises(UserError, match="dtd must hold .* found nothing"):
        resolve_data("./dtd")


def test_a_table_is_named_by_its_stem_and_needs_its_columns(write, tmp_path):
    folder = write(pets_csv="path,split,classname\n", bad_csv="path,kind\n")
    expected = {"NAME": "Table", "ROOT": str(folder), "TABLE": "pets.csv"}
    source = resolve_data(folder / "pets.csv")
    assert source.name == "pets"
    assert source.settings == {f"DATASET.{key}": value for key, value in expected.items()}
    with pytest.raises(ValueError, match=r"bad\.csv lacks the column split and classname or label"):
        resolve_data(folder / "bad.csv")


def test_a_folder_with_metadata_that_name_files_is_taken_in_the_hubs_form(write):
    folder = write("train/1.png", "test/1.png")
    for part in ("train", "test"):
        (folder / part / "metadata.csv").write_text("file_name,label\n1.png,cat")
    source = resolve_data(folder)
    assert (source.name, source.path) == ("photos", folder)
    assert source.settings["DATASET.NAME"] == "Table"
    write("cat/1.png", "dog/1.png")
    for part in ("train", "test"):
        (folder / part / "metadata.csv").write_text("word,count\ncat,1")
    assert resolve_data(folder).settings["DATASET.NAME"] == "ImageFolder"


def test_a_data_set_of_the_hub_has_the_name_it_was_called_by(hub):
    for part in ("train", "test"):
        folder = hub / "datasets" / "someone" / "pets" / part / "cat"
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "a.png")
    source = resolve_data("hf:someone/pets@main")
    assert source.name == "someone-pets-main"
    assert source.settings["DATASET.NAME"] == "Table"
    with pytest.raises(UserError, match=r"folder 'someone/pets'; did you mean hf:someone/pets\?"):
        resolve_data("someone/pets")


def test_a_yaml_gives_its_settings_with_the_root_where_it_has_none(write):
    text = "DATASET: {NAME: ImageFolder, PATH: cats, TEMPLATE: 'a {}'}\nINPUT: {SIZE: [32, 32]}"
    source = resolve_data(write(mine_yaml=text) / "mine.yaml", "/data")
    expected = {"NAME": "ImageFolder", "PATH": "cats", "TEMPLATE": "a {}", "ROOT": "/data"}
    settings = {f"DATASET.{key}": value for key, value in expected.items()}
    assert source.name == "mine"
    assert source.settings == {**settings, "INPUT.SIZE": [32, 32]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DATASET: {NAM: ImageFolder}", r"no setting DATASET\.NAM; did you mean DATASET\.NAME"),
        ("DATASET: {PATH: a}", "must name a data set"),
        ("DATASET: [", "no YAML"),
        ("MODEL: {BACKBONE: {TRUST_TORCHSCRIPT: true}}", "must not set .*give this permission"),
        ("", "must name a data set"),
    ],
)
def test_a_yaml_with_a_mistake_is_refused(text, message, write):
    with pytest.raises((UserError, ValueError), match=rf"mine\.yaml(, line \d)?:? {message}"):
        resolve_data(write(mine_yaml=text) / "mine.yaml")


def test_what_is_neither_a_name_nor_a_path_is_answered_with_the_nearest_name(write):
    with pytest.raises(UserError, match=r"no data set, file or folder 'dtf'; did you mean dtd"):
        resolve_data("dtf")
    with pytest.raises(UserError, match=r"must be a \.yaml, a table .* got .*notes\.txt"):
        resolve_data(write(notes_txt="") / "notes.txt")
