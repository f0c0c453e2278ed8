"""The wheel contains all files that it needs and works from any folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # From a copy: setuptools leaves a build folder behind, which must not shadow the sources.
    source = tmp_path_factory.mktemp("source") / "causalclip"
    folders = ("causalclip", "trainers", "datasets", "configs", "minidassl")
    files = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
    for folder in folders:
        subprocess.run(["cp", "-r", ROOT / folder, source.parent], check=True)
    for file in files:
        subprocess.run(["cp", ROOT / file, source.parent], check=True)
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out]
    done = subprocess.run([*build, source.parent], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_configs_weights_trainers_and_data_sets(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "causalclip/plugin.py",
        "causalclip/clip/assets/tiny.safetensors",
        "causalclip/clip/assets/tiny.md",
        "causalclip/clip/assets/imagenet_templates.json",
        "causalclip/clip/assets/tiny-coloured.safetensors",
        "causalclip/trainers/cdc.py",
        "causalclip/datasets/handwritten_digits.py",
        "causalclip/configs/trainers/CDC/tiny_m4.yaml",
        "causalclip/configs/datasets/handwritten_digits.yaml",
        "causalclip/minidassl/dassl/config/defaults.yaml",
    ):
        assert name in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"causalclip"}


def test_citation_and_changelog_have_the_version_of_the_package():
    def first(pattern: str, file: str) -> str:
        return re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)[0]

    version = first('^version = "(.+)"$', "pyproject.toml")
    assert first("^version: (.+)$", "CITATION.cff") == version
    assert first(r"^## \[(.+)\] - \d{4}-\d\d-\d\d$", "CHANGELOG.md") == version


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def run(code: str, cwd: Path) -> str:
    """Run Python code in a folder, with the packages of the environment."""
    return python(["-c", code], cwd, "")


def run_installed(arguments: list[str], cwd: Path, *places: Path) -> str:
    """Run Python with the packages in `places` and then those of the environment.

    No editable install is seen: with -S no .pth file is read, and PYTHONPATH reads none either.
    """
    path = [*map(str, places), sysconfig.get_path("purelib")]
    return python(["-S", *arguments], cwd, os.pathsep.join(path))


def python(arguments: list[str], cwd: Path, path: str) -> str:
    command = [sys.executable, *arguments]
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


CALLS = """import json, sys
from causalclip import cli
sys.exit(any([cli.main(words) for words in json.loads(sys.argv[1])]))"""


@pytest.mark.slow
def test_the_wheel_alone_plans_trains_and_predicts_in_an_empty_folder(
    installed, data_root, tmp_path
):
    """`data_root` only saves drawing the digits again."""
    configs = installed / "causalclip" / "configs"
    image = str(next((data_root / "handwritten_digits").glob("*/two/*.png")))
    plan = ["run", "base2new", "--methods", "CDC", "--datasets", "dtd", "--commands"]
    train = ["train", "--trainer", "CoOp", "--root", data_root, "--output-dir", "out", "--seed", 1]
    train += ["--dataset-config-file", configs / "datasets" / "handwritten_digits.yaml"]
    train += ["--config-file", configs / "trainers" / "CoOp" / "tiny.yaml"]
    train += ["DATASET.NUM_SHOTS", 1, "OPTIM.MAX_EPOCH", 1]
    predict = ["predict", "out", image, "--format", "json"]
    calls = json.dumps([plan, list(map(str, train)), predict])
    printed = run_installed(["-c", CALLS, calls], tmp_path, installed)
    file, *_ = re.findall(r" --config-file (\S+)", printed)
    assert Path(file) == configs / "trainers" / "CDC" / "vit_b16_m4.yaml"
    assert Path(file).is_file()
    assert "Results: out/results.json" in printed
    (answer,) = json.loads("".join(printed.splitlines()[-3:]))
    assert answer["image"] == image


def test_a_dassl_that_is_installed_wins_over_the_embedded_one(installed, tmp_path):
    (tmp_path / "dassl").mkdir()
    (tmp_path / "dassl" / "__init__.py").write_text("")
    code = "import causalclip, dassl; print(dassl.__file__)"
    for places in ([tmp_path, installed], [installed, tmp_path]):
        assert run_installed(["-c", code], tmp_path.parent, *places).startswith(str(tmp_path))


def test_a_folder_called_dassl_without_a_module_is_no_dassl(installed, tmp_path):
    (tmp_path / "dassl").mkdir()
    code = "import causalclip, dassl; print(dassl.__version__)"
    assert run_installed(["-c", code], tmp_path, installed).startswith("0.6.3")


@pytest.mark.parametrize("folder", ["repository", "elsewhere"])
def test_the_editable_install_gives_the_same_modules_everywhere(folder, tmp_path):
    cwd = ROOT if folder == "repository" else tmp_path
    code = "import importlib.util as u; print(u.find_spec('causalclip.trainers.cdc').origin)"
    assert run(code, cwd) == str(ROOT / "causalclip/trainers/cdc.py")
