"use strict";
// Runs in the page before its own script: acts once it is loaded, and reports in #outcome.
window.problems = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(kind, (event) => window.problems.push(
    kind + ": " + (event.message || event.blockedURI || event.reason)));
console.error = (...words) => window.problems.push(words.join(" "));

const act = async () => {
  const found = {};
  // Sorting
  const table = document.querySelector("#run-table table");
  const headings = [...table.tHead.rows[0].cells];
  const place = headings.findIndex((cell) => cell.innerText === "accuracy");
  const column = () =>
    [...table.tBodies].map((body) => Number(body.rows[0].cells[place].dataset.value));
  headings[place].querySelector("button").click();
  found.down = column();
  headings[place].querySelector("button").click();
  found.up = column();
  found.order = headings[place].getAttribute("aria-sort");
  // Readings, folded below their method
  const reading = document.querySelector("tr.reading");
  found.folded = [reading.hidden];
  reading.closest("tbody").querySelector(".unfold").click();
  found.folded.push(reading.hidden);
  // Filtering runs, and a link that opens its run
  const field = document.getElementById("run-filter");
  field.value = "clip_icm photo";
  field.dispatchEvent(new Event("input"));
  const shown = [...table.tBodies].filter((body) => !body.hidden);
  found.runs = shown.map((body) => body.innerText);
  const open = () => getComputedStyle(document.getElementById("run2")).display;
  found.opened = [open()];
  location.hash = "#run2";
  await new Promise((resolve) => setTimeout(resolve, 100));
  found.opened.push(open());
  // The gallery
  const form = document.getElementById("gallery-controls");
  const tiles = () => [...document.querySelectorAll("#tiles li")];
  const change = (name, value) => {
    form[name].value = value;
    form[name].dispatchEvent(new Event("change", {bubbles: true}));
    return tiles();
  };
  found.all = tiles().length;
  found.wrong = change("show", "wrong").map((tile) => tile.className);
  found.right = change("show", "right").map((tile) => tile.className);
  change("show", "all");
  found.uncertainty = change("sort", "uncertainty")
    .map((tile) => Number(tile.innerText.match(/u ([\d.e+-]+)/)[1]));
  found.classes = [...form.class.options].map((option) => option.text);
  found.ofClass = change("class", form.class.options[1].value).length;
  found.lost = document.querySelectorAll("#tiles .lost").length;
  found.templates = tiles().some((tile) => tile.innerText.includes("templates:"));
  found.scripts = document.querySelectorAll("#tiles script, svg script").length;
  change("class", "");
  const names = [...form.run.options].map((option) => option.value);
  form.run.value = names[0];
  change("run", names[0]);
  found.others = [...form.other.options].length;
  // Everything that can be open, checked for accessibility
  if (window.axe) {
    for (const each of document.querySelectorAll("details")) each.open = true;
    for (const each of document.querySelectorAll(".run")) each.style.display = "block";
    const faults = (await axe.run(document)).violations;
    found.faults = faults.filter((one) => ["serious", "critical"].includes(one.impact))
      .map((one) => [one.id, one.nodes.length, one.nodes[0].html.slice(0, 200)]);
  }
  return found;
};
addEventListener("load", async () => {
  let found = {};
  try { found = await act(); } catch (error) { window.problems.push(String(error)); }
  const requests = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:"));
  const report = document.createElement("pre");
  report.id = "outcome";
  report.textContent = JSON.stringify({...found, problems: window.problems, requests});
  document.body.append(report);
});
