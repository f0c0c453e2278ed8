"""The commands of the documents are valid: a shell passes them, and they are planned or parsed.

The shell runs the bash blocks with programs that only record how they were called. Blocks that do
not say what they need (`title="needs data"`) are run for real by tests/test_tutorials.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import test_tutorials

from causalclip import cli
from causalclip.data import command as data_command
from causalclip.errors import UserError
from causalclip.runs import flags, scripts, splits_command
from causalclip.runs.configuration import planned_settings
from causalclip.runs.recipes import methods, names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
OTHERS = "cp eval mkdir mkdocs pip pre-commit ray register-python-argcomplete".split()
"""Programs whose arguments are not checked, but for the extras that pip installs."""
PROGRAMS = [*OTHERS, *"bash causalclip pytest python python3 sbatch torchrun".split()]
RECORD = f"""#!/bin/bash
[ "$1" = -c ] && exec {sys.executable} "$@"
printf '%s\\37' "${{DATA-}}" "${{BACKBONE-}}" "${{0##*/}}" "$@" >> "$RECORDS"
printf '\\36' >> "$RECORDS"
"""


def blocks(page):
    """The text of the bash blocks of a page, one after the other."""
    found = re.findall(r"^```bash.*?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return "\n".join(found)


@pytest.fixture
def place(tmp_path, monkeypatch, random_clip):
    """The current folder, with what the commands name."""
    for name in ("photos/cat", "photos/dog", "pacs/art/cat", "pacs/photo/cat"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.png").touch()
    (tmp_path / "pets.csv").write_text("path,split,classname\na.png,train,cat\n")
    (tmp_path / "my_clip.safetensors").symlink_to(random_clip)
    for recipe, method in (("my_recipe", "MaPLe"), ("tuned_fewshot_16shots", "CoOp")):
        source = ROOT / "configs" / "trainers" / method / "tiny.yaml"
        text = source.read_text().replace("../", f"{source.parent}/../")
        (tmp_path / f"{recipe}.yaml").write_text(text)
    for entry in ("train.py", "configs", "scripts", "benchmarks"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA", raising=False)
    return tmp_path


def called(page, place):
    """DATA, BACKBONE, the program and its arguments of every command, as a shell passes them."""
    (place / "stubs").mkdir()
    for name in PROGRAMS:
        (place / "stubs" / name).write_text(RECORD)
        (place / "stubs" / name).chmod(0o755)
    records = place / "records"
    environment = {"PATH": str(place / "stubs"), "DATA": "/data", "RECORDS": str(records)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    shell = ["/bin/bash", "-c", blocks(page)]
    done = subprocess.run(shell, cwd=place, env=environment, capture_output=True, text=True)
    assert not re.search("command not found|syntax error|unexpected", done.stderr), done.stderr
    written = records.read_text().split("\36")[:-1] if records.exists() else []
    return [record.split("\37")[:-1] for record in written]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_valid(page, place, monkeypatch):
    for data, backbone, program, *words in called(page, place):
        print(program, *words)  # of a failure
        words = ["CoOp" if word == "MyMethod" else word for word in words if word != "..."]
        words = ["./photos" if word.startswith("hf:") else word for word in words]  # no network
        check(program, words, data, backbone, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_block_says_what_it_needs_or_runs_in_the_tutorials(page):
    if str(page.relative_to(ROOT)) not in test_tutorials.PAGES:
        assert "```bash\n" not in page.read_text(), 'write ```bash title="needs ..."'


@pytest.mark.parametrize(
    "line",
    [
        "causalclip run base2new --methods CDCC --datasets handwritten_digits",
        "causalclip run base2new --methods CDC --data-sets dtd",
        "causalclip run base2new --methods CDC --datasets dtdd",
        "causalclip run base2new --methods CDC --recipe no_such_recipe",
        "causalclip summarise output",
        "causalclip tune CDCC --datasets dtd",
        "causalclip train --trainer CDC --dataset-config-file configs/datasets/none.yaml",
        "bash scripts/lodo.sh CDC",
        "python benchmarks/limit.py --no-such-flag",
        "pip install 'causalclip[no_such_extra]'",
        "curl https://example.org",
    ],
)
def test_a_wrong_command_is_found(line, place, monkeypatch):
    page = place / "page.md"
    page.write_text(f"```bash\n{line}\n```\n")
    with pytest.raises((AssertionError, SystemExit, UserError)):
        test_every_command_of_a_page_is_valid(page, place, monkeypatch)


def check(program, words, data, backbone, monkeypatch):
    """Fail for a command that would be refused."""
    if program == "torchrun" or words[:2] == ["-m", "torch.distributed.run"]:
        start = words.index("causalclip") if "causalclip" in words else words.index("train.py")
        program, words = (
            "python",
            words[start:] if words[start] == "train.py" else words[start - 1 :],
        )
    if program.startswith("python") and words[0] == "-m":
        program, *words = words[1:]
    if program == "python" and words[0] == "train.py":
        program, words = "causalclip", ["train", *words[1:]]
    if program == "sbatch":
        program, words = "causalclip", ["run", *words[words.index("scripts/ray.sbatch") + 1 :]]
    if program == "causalclip":
        check_ours(words)
    elif program == "bash":
        check_script(words, {"DATA": data, "BACKBONE": backbone}, monkeypatch)
    elif program in ("python", "pytest"):
        check_file(words)
    elif program == "pip":
        known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        asked = re.findall(r"\[([\w,]+)\]", " ".join(words))
        assert set(",".join(asked).split(",")) - {""} <= set(known)
    else:
        assert program in (*OTHERS, "build", "venv")


def check_ours(words):
    """Plan what is a plan; parse the others, with the names of methods and data sets."""
    command = cli.COMMANDS.get(words[0])
    if words[0] == "run":
        assert cli.main([*words, "--dry-run"]) == 0
    elif words[0] == "train":
        args = flags.parser().parse_args(words[1:])
        assert not args.dataset_config_file or planned_settings(tuple(words[1:]))
    elif words[:2] == ["data", "splits"]:
        splits_command.parser().parse_args(words[2:])
    elif words[0] == "data":
        data_command._parse([*words[1:], "--data", "."])
    elif command and (parser := command.make_parser()):
        with_pairs = any(action.dest == "settings" for action in parser._actions)
        args = flags.parse(words[1:], parser) if with_pairs else parser.parse_args(words[1:])
        named = [*getattr(args, "methods", ())] if words[0] != "summarize" else []
        named += words[1:2] if words[0] in ("tune", "convert") else []
        assert {*named} <= {*methods()}
        for name in getattr(args, "datasets", ()):
            assert name in names("datasets") or Path(name).exists()
    else:
        assert words == ["--version"]


def check_script(words, environment, monkeypatch):
    """Plan what a script of a protocol would run; of the others, the flags exist."""
    path = ROOT / words[0]
    assert path.is_file()
    if path.stem not in scripts.SCRIPTS:
        assert all(word in path.read_text() for word in words[1:])
        return

    def dry(function, *arguments, **_):
        return function(*arguments, dry=True)

    with monkeypatch.context() as patch:
        for name in ("planned", "with_data"):
            patch.setattr(scripts, name, partial(dry, getattr(scripts, name)))
        for name in ("perform", "print_table"):
            patch.setattr(scripts, name, lambda *_, **__: 0)
        assert scripts.main([path.stem, *words[1:]], environment) == 0


def check_file(words):
    """The file is there and knows the flags."""
    path = ROOT / words[0]
    assert path.exists()
    if path.suffix == ".py":
        text = path.read_text() + (ROOT / "benchmarks" / "setting.py").read_text()
        assert all(f'"{word}"' in text for word in words[1:] if word.startswith("--"))
