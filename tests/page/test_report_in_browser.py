"""The page in Debian's chromium: it opens in silence, sorts, filters, takes no name for markup.

Without a driver: a script in the page acts, and reports in an element that the browser prints.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium")

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
"""Of `npm ci --prefix tests/page`, as .ci/run does."""

SCRIPT = Path(__file__).with_name("browser.js")


@pytest.fixture(scope="module")
def outcome(page, tmp_path_factory):
    """Return the findings of the script, and the page's problems and requests."""
    folder = tmp_path_factory.mktemp("browser")
    scripts = [f"<script>{file.read_text()}</script>" for file in (SCRIPT, AXE) if file.is_file()]
    copy = folder / "acted.html"
    copy.write_text(page.read_text().replace("<head>", "<head>" + "".join(scripts), 1))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    options += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", copy.as_uri()]
    words = [BROWSER, *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    report = re.search(r'<pre id="outcome">(.*?)</pre>', done.stdout, re.DOTALL)
    assert report, f"the page has not come to its end: {done.stdout[-500:]}"
    return json.loads(html.unescape(report[1]))


def test_it_opens_without_an_error_and_without_a_request(outcome):
    assert outcome["problems"] == []
    assert outcome["requests"] == []


def test_a_click_sorts_and_another_turns_it_round(outcome):
    assert outcome["down"] == sorted(outcome["down"], reverse=True)
    assert outcome["up"] == sorted(outcome["up"])
    assert outcome["up"] != outcome["down"]
    assert outcome["order"] == "ascending"


def test_runs_are_filtered_by_the_words_of_their_name_and_opened_by_a_link(outcome):
    (name,) = outcome["runs"]
    assert "CLIP_ICM" in name
    assert "photo" in name
    assert outcome["opened"] == ["none", "block"]
    assert outcome["folded"] == [True, False]


def test_the_gallery_filters_and_sorts_and_class_names_stay_text(outcome):
    assert set(outcome["wrong"]) == {"wrong"}
    assert set(outcome["right"]) == {"right"}
    assert len(outcome["wrong"]) + len(outcome["right"]) == outcome["all"] == 25
    assert outcome["uncertainty"] == sorted(outcome["uncertainty"], reverse=True)
    assert 0 < outcome["ofClass"] < outcome["all"]
    assert outcome["lost"] > 0
    assert outcome["templates"]
    assert '<script>alert("1")</script>' in outcome["classes"]
    assert outcome["scripts"] == 0


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm ci --prefix tests/page")
def test_axe_finds_no_serious_fault(outcome):
    assert outcome["faults"] == []
