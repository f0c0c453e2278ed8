"""Text from files: no terminal escape and no formula reaches a terminal, a table or a CSV file."""

from __future__ import annotations

import csv
import io
import subprocess
import sys

import pandas as pd
import pytest

from causalclip.errors import sentence
from causalclip.files.text import spreadsheet_cell, visible
from causalclip.report.formats import format_tables

ESCAPE = "\x1b]0;owned\x07\x9b2J"


def test_control_characters_are_shown_and_letters_of_any_script_stay():
    assert visible(ESCAPE) == r"\x1b]0;owned\x07\x9b2J"
    assert visible("a\ud800\n") == r"a\ud800\n"
    for text in ("größe 汉字 👩\u200d🚀", "नमस्\u200dते", ""):
        assert visible(text) == text
    assert sentence(ValueError(f"no {ESCAPE}\nsecond")) == "no \\x1b]0;owned\\x07\\x9b2J\nsecond"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("=1+2", "'=1+2"), ("@a", "'@a"), ("-x.png", "'-x.png"), ("\t=1", r"'\t=1")]
    + [("-1.5", "-1.5"), ("+2e3", "+2e3"), (-1.5, -1.5), ("a=b", "a=b"), ("", "")],
)
def test_a_cell_is_no_formula(cell, expected):
    assert spreadsheet_cell(cell) == expected


def test_a_table_holds_no_escape_in_any_format():
    table = pd.DataFrame({"method": [f"=A (T={ESCAPE})", "a|b"], "x": [-1.0, 2.0]})
    for style in ("markdown", "latex", "csv"):
        text = format_tables([("title", table)], style)
        assert not set(ESCAPE) & set(text) - set("]0;owned2J"), style
    rows = list(csv.reader(io.StringIO(format_tables([("t", table)], "csv"))))
    assert rows[2][0].startswith("'=A") and float(rows[2][1]) == -1
    assert r"a\|b" in format_tables([("title", table)], "markdown")


@pytest.mark.minidassl
def test_a_console_that_lacks_a_letter_shows_its_escape(tmp_path):
    code = (
        "from causalclip.files.text import print_any_text; print_any_text();"
        "from dassl.utils.logger import Logger; import sys;"
        f"sys.stdout = Logger({str(tmp_path / 'log.txt')!r}); print('汉 \\udcff')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={"PYTHONIOENCODING": "cp1252", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.split() == [rb"\u6c49", rb"\udcff"], done.stderr
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "汉 \\udcff\n"
