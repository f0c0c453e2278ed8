"""Make the pictures of docs/report.md from the page of any study, with Debian's chromium.

    causalclip report output/quickstart
    python scripts/report_screenshots.py output/quickstart/report.html

Each picture shows one section, 1280 pixels wide, in 256 colours to keep the file small.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
ALONE = """<script>{ // a block, because the page may have the same names
for (const each of document.querySelectorAll("main > section"))
  if (!each.querySelector("%s")) each.remove();
%s
}</script></body>"""
OPEN = """
for (const each of document.querySelectorAll("#runs, #runs + .controls, #run-table"))
  each.remove();
document.querySelector(".run").style.display = "block";
"""
MISTAKES = """
const form = document.getElementById("gallery-controls");
form.show.value = "wrong";
form.dispatchEvent(new Event("change"));
"""
SHOTS = {
    "report_answer.png": ("#what", "", 595),
    "report_run.png": (".run", OPEN, 2300),
    "report_gallery.png": ("#tiles", MISTAKES, 1150),
}
"""File name: selector of an element in its section, script to run first, height in pixels."""


def shoot(page: Path, name: str) -> Path:
    """Write one picture to docs/figures/; return its path."""
    holds, action, height = SHOTS[name]
    target = FOLDER / name
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(page.read_text().replace("</body>", ALONE % (holds, action)))
        subprocess.run(
            [
                *(browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--window-size=1280,{height}", f"--screenshot={target}", copy.as_uri()),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    with Image.open(target) as image:
        # The default method averages similar colours, which makes thin lines grey.
        small = image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
        small.save(target, optimize=True)
    return target


def browser() -> str:
    """Return the browser that is installed.

    Raises:
        FileNotFoundError: no browser is installed.
    """
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise FileNotFoundError("no browser: apt-get install chromium")


def main() -> int:
    """Write the pictures; print their paths and sizes."""
    for name in SHOTS:
        path = shoot(Path(sys.argv[1]), name)
        print(f"wrote {path} ({path.stat().st_size / 1000:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
