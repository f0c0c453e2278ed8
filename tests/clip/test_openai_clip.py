"""OpenAI's package: its tokenizer, and that nothing else called `clip` gets in the way."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch

from causalclip.clip import openai_clip
from causalclip.clip.backbone import BUNDLED_CLIPS, available_models
from causalclip.clip.interface import tokenize


def test_tokens_are_openais_in_int64():
    texts = ["a photo of a cat.", "Tea & biscuits"]
    tokens = tokenize(texts)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, openai_clip.padded_tokens(texts).long())
    with pytest.raises(ValueError, match="'a b c d' takes 6 tokens, more than .* length 5"):
        tokenize(["a", "a b c d"], 5)
    assert tokenize("a b c", 5)[0, -1] == 49407


def test_another_package_called_clip_does_not_get_in_the_way(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "__init__.py").write_text("CHECKOUT = True\n")
    code = """
        import sys, warnings
        warnings.simplefilter("error")
        from causalclip.clip import backbone, interface
        assert "clip" not in sys.modules
        import clip  # the checkout's code still gets its own
        assert clip.CHECKOUT
        model = backbone.build_clip(vision_layers=1, transformer_layers=1)
        print(tuple(model.encode_text(interface.tokenize("a")).shape), type(model).__module__)
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["(1,", "32)", "_causalclip_openai_clip.model"]


def test_a_fork_imported_earlier_does_not_get_in_the_way(monkeypatch):
    fork = ModuleType("clip")
    fork.__file__ = "checkout/clip/__init__.py"
    monkeypatch.setitem(sys.modules, "clip", fork)
    package = openai_clip._import_clip()
    loaded = [name for name in sys.modules if name.startswith(openai_clip.PRIVATE_NAME)]
    for name in loaded:
        del sys.modules[name]
    assert Path(package.__file__) == openai_clip._distribution_file()
    assert [*package.available_models(), *BUNDLED_CLIPS] == available_models()
    assert sys.modules["clip"] is fork


def test_without_pkg_resources_the_error_names_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "clip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(ImportError, match=r'needs pkg_resources.*pip install "setuptools<81"'):
        openai_clip._import_clip()


def test_without_openais_clip_the_error_says_what_to_install(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(openai_clip.metadata, "distribution", missing)
    with pytest.raises(ImportError, match="pip install openai-clip==1.0.1"):
        openai_clip._import_clip()
