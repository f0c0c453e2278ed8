"""Snippets of the documents print what they say; what the README names exists."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(
    r"```python\n(.*?)```", README + (ROOT / "docs" / "python.md").read_text(), flags=re.DOTALL
)


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


def test_the_readme_is_at_most_150_lines():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_links_to_pages_and_pictures_that_exist(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    generated = {"contributing.md", "changelog.md", "index.md"}  # docs/site.py
    missing = [link for link in links if not (page.parent / link).exists()]
    assert set(missing) <= generated


@pytest.mark.parametrize("path", sorted(set(re.findall(r"configs/[\w/]+\.yaml", README))))
def test_a_configuration_it_names_exists(path):
    assert (ROOT / path).exists()
