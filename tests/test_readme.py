"""The README's snippets print what they say, and its commands and files exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_python_snippet_prints_what_its_comment_says(snippet):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet, {})
    expected = snippet.strip().splitlines()[-1].removeprefix("# ")
    assert printed.getvalue().strip() == expected


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b[\w/]+\.(?:sh|md)\b", README))))
def test_a_script_or_document_it_names_exists(name):
    assert (ROOT / name).exists() or (ROOT / "scripts" / name).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"configs/[\w/]+\.yaml", README))))
def test_a_configuration_it_names_exists(path):
    assert (ROOT / path).exists()
