"use strict";
// Tables: a click on a heading sorts by it, another one turns the order round.
const comparable = (cell) => {
  const text = cell.dataset.value, number = Number(text);
  return text !== "" && !Number.isNaN(number) ? number : text === "nan" ? "" : text.toLowerCase();
};
const compared = (a, b) => {
  if (a === b) return 0;
  if (a === "" || b === "") return a === "" ? 1 : -1;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a < b ? -1 : 1;
};
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), place = heading.cellIndex;
    const table = heading.closest("table");
    // Figures are looked at from the top: the first click puts the largest there.
    const first = heading.classList.contains("number") ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const each of heading.parentElement.cells) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies].map((body) => [comparable(body.rows[0].cells[place]), body]);
    rows.sort(([a], [b]) => (a === "" || b === "" ? compared(a, b) : sign * compared(a, b)));
    table.append(...rows.map(([, body]) => body));
  });
}

// The other readings of a method.
for (const button of document.querySelectorAll(".unfold")) {
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", open);
    for (const row of button.closest("tbody").querySelectorAll(".reading")) row.hidden = !open;
  });
}

// Runs: the field selects rows of the table; a run is shown by the address of its link alone.
const field = document.getElementById("run-filter");
const filter = () => {
  const words = field.value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const body of document.querySelectorAll("#run-table tbody")) {
    const name = body.textContent.toLowerCase();
    body.hidden = !words.every((word) => name.includes(word));
    count += !body.hidden;
  }
  document.getElementById("run-count").textContent = field.value ? `${count} runs` : "";
};
field.addEventListener("input", filter);
for (const link of document.querySelectorAll("a[data-runs]")) {
  link.addEventListener("click", () => {
    field.value = link.dataset.runs;
    filter();
  });
}
// Paper has nothing to click: all is open, but for the settings, which are long.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("tr.reading")) each.hidden = false;
  for (const each of document.querySelectorAll("details:not(.all-settings)")) each.open = true;
});

// A study that is still running.
const seconds = Number(document.documentElement.dataset.refresh);
if (seconds) setTimeout(() => location.reload(), 1000 * seconds);

// The gallery. Everything from the data enters as text, never as markup.
const data = JSON.parse(document.getElementById("gallery-data").textContent);
const form = document.getElementById("gallery-controls");
const AT_ONCE = 60;
const element = (name, text = "", kind = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const options = (select, pairs) => {
  select.replaceChildren(...pairs.map(([value, text]) => {
    const option = element("option", text);
    option.value = value;
    return option;
  }));
};
const shortly = (value) => (value === null ? "–" : value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : value.toFixed(3));
const unpacked = (run) => run.items.map(([image, label, prediction, probability, uncertainty, conflict, votes]) => ({
  run, image: data.images[image], label: run.classes[label], prediction: run.classes[prediction],
  right: label === prediction, probability, uncertainty, conflict, domain: run.domain,
  votes: votes && votes.map(([vote, p]) => [run.classes[vote], p]),
}));
const KEEPS = {
  all: () => true,
  right: (item) => item.right,
  wrong: (item) => !item.right,
  uncertain: (item) => item.uncertainty >= item.run.uncertain,
  conflicting: (item) => item.conflict !== null && item.conflict >= item.run.conflicting,
  better: (item) => item.right && item.other && !item.other.right,
  worse: (item) => !item.right && item.other && item.other.right,
};
let items = [], limit = AT_ONCE;
const choose = () => {
  const runs = form.run.value ? data.runs.filter((run) => run.anchor === form.run.value) : data.runs;
  items = runs.flatMap(unpacked);
  const classes = [...new Set(items.map((item) => item.label))].sort();
  const domains = [...new Set(items.map((item) => item.domain).filter(Boolean))].sort();
  const before = [form.class.value, form.domain.value];
  options(form.class, [["", "all"], ...classes.map((name) => ["=" + name, name])]);
  options(form.domain, [["", "all"], ...domains.map((name) => ["=" + name, name])]);
  [form.class.value, form.domain.value] = before;
  if (form.class.selectedIndex < 0) form.class.value = "";
  if (form.domain.selectedIndex < 0) form.domain.value = "";
  form.domain.disabled = !domains.length;
  const [run] = runs, old = form.other.value;
  const others = form.run.value ? data.runs.filter((other) => other !== run && other.tested === run.tested) : [];
  options(form.other, [["", "no other run"], ...others.map((other) => [other.anchor, other.name])]);
  form.other.value = old;
  if (form.other.selectedIndex < 0) form.other.value = "";
  form.other.disabled = !others.length;
  const other = others.find((each) => each.anchor === form.other.value);
  const answered = new Map(other ? unpacked(other).map((item) => [item.image, item]) : []);
  for (const item of items) item.other = answered.get(item.image);
  const count = (a, b) => [...run.right].filter((right, k) => right === a && other.right[k] === b).length;
  document.getElementById("compared").textContent = !other ? "" : `Of all ${run.count} images both have ${count("1", "1")} right and ${count("0", "0")} wrong; `
    + `${count("1", "0")} are right only in ${run.name}, ${count("0", "1")} only in ${other.name}.`;
};
const tile = (item) => {
  const made = element("li", "", item.right ? "right" : "wrong");
  if (item.image.src) {
    const picture = element("img");
    picture.alt = `test image, ${item.label}`;
    picture.onload = () => picture.classList.toggle("small", picture.naturalWidth < 64);
    picture.src = item.image.src;
    picture.title = item.image.path;
    made.append(picture);
  } else {
    made.append(element("div", `${item.image.path}: ${item.image.reason}`, "lost"));
  }
  made.append(element("p", `${item.right ? "✓" : "✗"} ${item.prediction} ${shortly(item.probability)}`));
  if (!item.right) made.append(element("p", `label: ${item.label}`));
  if (item.other) made.append(element("p", `other run: ${item.other.right ? "✓" : "✗"} ${item.other.prediction}`));
  const numbers = element("p");
  numbers.append(element("span", `u ${shortly(item.uncertainty)}`));
  if (item.conflict !== null) numbers.append(" ", element("span", `conflict ${shortly(item.conflict)}`));
  made.append(numbers);
  if (item.votes) {
    const several = new Set(item.votes.map(([vote]) => vote)).size > 1;
    const said = several ? item.votes.map(([vote, p]) => `${vote} ${p.toFixed(2)}`).join(", ") : `all ${item.votes.length}: ${item.votes.map(([, p]) => p.toFixed(2)).join(" ")}`;
    made.append(element("p", `templates: ${said}`));
  }
  if (!form.run.value) made.append(element("p", item.run.name, "faint"));
  return made;
};
const show = () => {
  const keep = KEEPS[form.show.value], key = form.sort.value, sign = form.descending.checked ? -1 : 1;
  const kept = items.filter((item) => keep(item)
    && (!form.class.value || form.class.value === "=" + item.label)
    && (!form.domain.value || form.domain.value === "=" + item.domain));
  const rank = (item) => (item[key] === null ? "" : typeof item[key] === "boolean" ? Number(item[key]) : item[key]);
  kept.sort((a, b) => (rank(a) === "" || rank(b) === "" ? compared(rank(a), rank(b)) : sign * compared(rank(a), rank(b))));
  document.getElementById("tiles").replaceChildren(...kept.slice(0, limit).map(tile));
  document.getElementById("more").hidden = kept.length <= limit;
  document.getElementById("gallery-count").textContent = `${kept.length} of ${items.length} answers of ${form.run.selectedOptions[0].text}` + (kept.length > limit ? `, the first ${limit} are shown` : "");
};
if (form) {
  options(form.run, [...data.runs.map((run) => [run.anchor, run.name]), ["", "every run"]]);
  form.addEventListener("change", (event) => {
    limit = AT_ONCE;
    if (["run", "other"].includes(event.target.name)) choose();
    show();
  });
  document.getElementById("more").addEventListener("click", () => { limit += 4 * AT_ONCE; show(); });
  for (const button of document.querySelectorAll(".to-gallery")) {
    button.addEventListener("click", () => {
      form.run.value = button.dataset.run;
      choose();
      show();
      document.getElementById("gallery").scrollIntoView();
    });
  }
  choose();
  show();
}
