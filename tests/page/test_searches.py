"""The trials of a search on the page: values, scores, what was pruned, and the origin."""

from __future__ import annotations

import json

from page.conftest import NASTY, Outline

from causalclip.page.command import Renderer
from causalclip.page.searches import search_tables
from causalclip.page.study import Study
from causalclip.records.searches import Trial, write_search

TRIALS = [
    Trial(number=0, end="complete", score=62.5, seconds=3.0, settings={}),
    Trial(number=1, end="pruned", score=70.0, seconds=1.0, settings={"OPTIM.LR": 0.02}),
    Trial(number=2, end="complete", score=65.0, seconds=None, settings={"OPTIM.LR": 0.01}),
    Trial(number=3, end=NASTY, score=None, seconds=1.0, settings={"TRAINER.CDC.M": 2}),
]
RECORD = {
    "method": "CDC",
    "protocol": "fewshot",
    "command": "causalclip tune CDC --datasets photos",
    "recipe": "tiny_m4",
    "result": "tuned.yaml",
    "seeds": [11, 12],
    "data": {"photos": {"train": "a" * 64, "val": "b" * 64}},
    "best": 2,
    "trials": TRIALS,
}


def test_a_search_has_a_row_a_trial_and_says_where_its_recipe_comes_from(tmp_path):
    write_search(tmp_path, RECORD)
    ((table,), problems) = search_tables(tmp_path)
    assert problems == []
    assert table.title == "CDC on photos, few-shot"
    assert table.columns == ["trial", "score", "end", "OPTIM.LR", "TRAINER.CDC.M", "s"]
    texts = [[cell.text for cell in row] for row in table.rows]
    assert texts[0] == ["0", "62.50", "complete", "as the recipe", "as the recipe", "3"]
    assert texts[1][:4] == ["1", "70.00", "pruned", "0.02"]
    assert texts[3][1] == "-"
    assert [row[1].best for row in table.rows] == [False, False, True, False]  # not the pruned one
    for part in ("seeds 11, 12", "tuned.yaml", "tiny_m4", "val bbbb", RECORD["command"]):
        assert part in table.note


def test_the_page_shows_it_with_the_runs_and_names_one_that_cannot_be_read(tmp_path, write_one):
    write_one(tmp_path, "one")
    page = Outline(Renderer(images=0).page(Study.read(tmp_path)))
    assert "Searches" not in page.text
    write_search(tmp_path, RECORD)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "search.json").write_text(json.dumps({**RECORD, "seeds": "11"}))
    source = Renderer(images=0).page(Study.read(tmp_path))
    page = Outline(source)
    assert "CDC on photos, few-shot" in page.text
    assert "search.json must be the record of a search" in page.text
    assert NASTY not in source
