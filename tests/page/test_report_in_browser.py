"""The page in a real browser: it opens in silence, sorts, filters, and takes no name for markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import MISSING, act, browser

pytestmark = pytest.mark.skipif(browser() is None, reason=MISSING)

SCRIPT = r"""
const found = {};
// Sorting
const table = document.querySelector("#what").closest("section").querySelector("table");
const headings = [...table.tHead.rows[0].cells];
const place = headings.findIndex((cell) => cell.innerText === "runs");
const rows = () => [...table.tBodies[0].rows];
const column = () => rows().map((row) => Number(row.cells[place].dataset.value));
const button = table.tHead.rows[0].cells[place].querySelector("button");
button.click();
found.down = column();
button.click();
found.up = column();
found.said = table.tHead.rows[0].cells[place].getAttribute("aria-sort");
// Filtering runs
const field = document.getElementById("run-filter");
field.value = "clip_icm photo";
field.dispatchEvent(new Event("input"));
const shown = [...document.querySelectorAll(".run")].filter((run) => !run.hidden);
found.runs = shown.map((run) => run.dataset.name);
// A link opens its run
location.hash = "#run2";
await new Promise((resolve) => setTimeout(resolve, 100));
found.opened = document.getElementById("run2").open;
// The gallery
const form = document.getElementById("gallery-controls");
const change = (name, value) => {
  form[name].value = value;
  form[name].dispatchEvent(new Event("change", {bubbles: true}));
};
const tiles = () => [...document.querySelectorAll("#tiles li")];
found.all = tiles().length;
change("show", "wrong");
found.wrong = tiles().map((tile) => tile.className);
change("show", "right");
found.right = tiles().map((tile) => tile.className);
change("show", "all");
change("sort", "uncertainty");
found.uncertainty = tiles().map((tile) => Number(tile.innerText.match(/u ([\d.e+-]+)/)[1]));
found.classes = [...form.class.options].map((option) => option.text);
change("class", form.class.options[1].value);
found.ofClass = tiles().length;
found.lost = document.querySelectorAll("#tiles .lost").length;
found.templates = tiles().some((tile) => tile.innerText.includes("templates:"));
found.scripts = document.querySelectorAll("#tiles script, svg script").length;
// Everything that can be open, looked at for accessibility
if (window.axe) {
  for (const each of document.querySelectorAll("details")) each.open = true;
  const faults = (await axe.run(document)).violations;
  found.faults = faults.filter((one) => ["serious", "critical"].includes(one.impact))
    .map((one) => [one.id, one.nodes.length, one.nodes[0].html.slice(0, 200)]);
}
return found;
"""

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
"""Of `npm ci --prefix tests/page`, as .ci/run does."""


@pytest.fixture(scope="module")
def outcome(page, tmp_path_factory):
    axe = AXE.read_text() if AXE.is_file() else ""
    return act(page, SCRIPT, tmp_path_factory.mktemp("browser"), before=axe)


def test_it_opens_without_an_error_and_without_a_request(outcome):
    assert outcome["problems"] == []
    assert outcome["requests"] == []


def test_a_click_sorts_and_another_turns_it_round(outcome):
    found = outcome["found"]
    assert found["down"] == sorted(found["down"], reverse=True)
    assert found["up"] == sorted(found["up"])
    assert found["up"] != found["down"]
    assert found["said"] == "ascending"


def test_runs_are_filtered_by_the_words_of_their_name_and_opened_by_a_link(outcome):
    (name,) = outcome["found"]["runs"]
    assert "CLIP_ICM" in name
    assert "photo" in name
    assert outcome["found"]["opened"]


def test_the_gallery_filters_and_sorts(outcome):
    found = outcome["found"]
    assert set(found["wrong"]) == {"wrong"}
    assert set(found["right"]) == {"right"}
    assert len(found["wrong"]) + len(found["right"]) == found["all"] == 25
    assert found["uncertainty"] == sorted(found["uncertainty"], reverse=True)
    assert 0 < found["ofClass"] < found["all"]
    assert found["lost"] > 0
    assert found["templates"]


def test_class_names_are_shown_as_they_are(outcome):
    assert '<script>alert("1")</script>' in outcome["found"]["classes"]
    assert outcome["found"]["scripts"] == 0


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm ci --prefix tests/page")
def test_axe_finds_no_serious_fault(outcome):
    assert outcome["found"]["faults"] == []
