"""Dassl itself, patched: run against the checkout that CAUSALCLIP_DASSL names, each in a process.

Without one, only what does not need Dassl is tested.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import dassl
import pytest
import torch

from causalclip.dassl_compat import patch_dassl
from causalclip.files.torch_files import save_whole

CHECKOUT = os.environ.get("CAUSALCLIP_DASSL")
needs_dassl = pytest.mark.skipif(
    not CHECKOUT, reason="set CAUSALCLIP_DASSL to a checkout of Dassl 0.6.3 to run this"
)
PATCHED = "from causalclip.dassl_compat import patch_dassl\npatch_dassl()\n"


def python(code: str, *paths: str | Path) -> str:
    """Run `code` in a fresh interpreter with `paths` before everything else; return its output."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def on_dassl(code: str) -> str:
    """Run `code` after Dassl was patched; return its output."""
    return python(PATCHED + textwrap.dedent(code), CHECKOUT)


def test_the_embedded_toolkit_needs_no_patches():
    if dassl.__version__.endswith("+mini"):
        assert patch_dassl() == [] and patch_dassl() == []


def test_a_torchvision_without_its_operators_is_imported_after_all(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "first_half.py").write_text("")
    # What torchvision/_meta_registrations.py does, and how torch answers.
    (package / "__init__.py").write_text(
        "import torch, torchvision.first_half\n"
        "torch.library.register_fake('torchvision::nms')(lambda *a: None)\n"
    )
    out = python(
        """
        try:
            import torchvision
        except RuntimeError as error:
            print(error)
        from causalclip import dassl_compat
        patch, patches = dassl_compat.patch_torchvision, []
        dassl_compat.patch_torchvision = lambda: patches.append(patch()) or []
        try:
            import causalclip.plugin
        except ImportError:  # this torchvision has no transforms
            import torchvision
        print(*patches, patch())
        print("imported", torchvision.first_half.__name__)
        """,
        tmp_path,
    )
    assert out.splitlines() == [
        "operator torchvision::nms does not exist",
        "['torchvision without its nms operator'] []",
        "imported torchvision.first_half",
    ]


@needs_dassl
def test_dassl_is_patched_once_reported_through_logging_and_nothing_else_is_changed():
    out = python(
        """
        import logging, sys
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
        from causalclip.dassl_compat import patch_dassl
        first, again = patch_dassl(), patch_dassl()
        import dassl.engine, numpy
        print(dassl.__version__, first is again)
        board = sys.modules.get("torch.utils.tensorboard")  # its placeholder is gone
        print(hasattr(numpy, "int"), board is None or hasattr(board, "__path__"))
        """,
        CHECKOUT,
    )
    assert out.count("causalclip.dassl_compat patched Dassl for torch") == 1
    for part in ("pass `verbose`", "pickle the scheduler", "np.int"):
        assert part in out
    assert out.split()[-4:] == ["0.6.3", "True", "False", "True"]


@needs_dassl
def test_a_log_that_goes_leaves_the_callers_stdout_open(tmp_path):
    out = on_dassl(
        f"""
        import sys
        from dassl.utils import setup_logger
        before = sys.stdout
        setup_logger({str(tmp_path)!r})
        print("in the log")
        sys.stdout = before  # the logger goes, and with it its file
        print("and on")
        """
    )
    assert out.split("\n")[-3:-1] == ["in the log", "and on"]
    assert (tmp_path / "log.txt").read_text() == "in the log\n"


@needs_dassl
def test_functions_imported_before_are_patched_too(tmp_path):
    out = python(
        f"""
        from dassl.utils import load_checkpoint, save_checkpoint
        from causalclip.dassl_compat import patch_dassl
        patch_dassl()
        import torch
        from torch.optim import SGD
        from torch.optim.lr_scheduler import CosineAnnealingLR
        schedule = CosineAnnealingLR(SGD([torch.ones(1, requires_grad=True)], 0.1), 5.0)
        state = {{"state_dict": {{"w": torch.ones(2)}}, "epoch": 1, "scheduler": schedule}}
        save_checkpoint(state, {str(tmp_path)!r})
        read = load_checkpoint({str(tmp_path / "model.pth.tar-1")!r})
        print(read["state_dict"]["w"].tolist(), read["scheduler"].state["T_max"])
        """,
        CHECKOUT,
    )
    assert out.splitlines()[-1] == "[1.0, 1.0] 5.0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "model.pth.tar-1"]


@needs_dassl
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is damaged"),
        (b"no checkpoint", "the file is damaged, cut short, or no checkpoint (Unsupported operand"),
        (b"PK\x03\x04 cut short", "the file is damaged"),
        (b"\x80\x02cshutil\nrmtree\n.", "it holds a pickled shutil.rmtree, which could run code"),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_names_the_file(content, reason, tmp_path):
    path = tmp_path / "model.pth.tar-1"
    path.write_bytes(content)
    out = on_dassl(
        f"""
        from dassl.utils import load_checkpoint
        try:
            load_checkpoint({str(path)!r})
        except ValueError as error:
            print(error)
        """
    )
    assert f'Unable to load checkpoint from "{path}": {reason}' in out


@needs_dassl
def test_the_contract_of_the_toolkit_holds_for_patched_dassl():
    folder = Path(__file__).parent / "toolkit"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", folder],
        env={**os.environ, "PYTHONPATH": CHECKOUT},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_a_full_disk_is_named_for_dassls_checkpoints_as_well(tmp_path, monkeypatch):
    def save(state, file):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 704 vs 640")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match=r"No space left to write .*model.pth; the previous"):
        save_whole({}, str(tmp_path / "model.pth"))
    assert os.listdir(tmp_path) == []
