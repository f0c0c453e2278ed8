"""A page in Debian's chromium without any driver: a script in the page acts and reports."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no browser: apt-get install chromium"

WATCH = """<script>
window.problems = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(kind, (event) => window.problems.push(
    kind + ": " + (event.message || event.blockedURI || event.reason)));
const complain = console.error;
console.error = (...words) => { window.problems.push(words.join(" ")); complain(...words); };
</script>"""

ACT = """<script>
addEventListener("load", async () => {
  let found;
  try { found = await (async () => { %s })(); }
  catch (error) { window.problems.push(String(error)); }
  const requests = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:"));
  const report = document.createElement("pre");
  report.id = "outcome";
  report.textContent = JSON.stringify({found, problems: window.problems, requests});
  document.body.append(report);
});
</script>"""


def browser() -> str | None:
    """The browser that is installed, if any."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def act(page: Path, script: str, folder: Path, *, before: str = "") -> dict:
    """What `script` returns in the page, with the page's problems and requests.

    `before` is a library's source, for the script to use.
    """
    text = page.read_text().replace("<head>", "<head>" + WATCH, 1)
    library = f"<script>{before}</script>" if before else ""
    copy = folder / "acted.html"
    copy.write_text(text.replace("</body>", library + ACT % script + "</body>", 1))
    dumped = subprocess.run(
        [
            *(browser(), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000"),
            copy.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    outcome = re.search(r'<pre id="outcome">(.*?)</pre>', dumped, re.DOTALL)
    assert outcome, f"the page has not come to its end: {dumped[-500:]}"
    return json.loads(html.unescape(outcome[1]))
