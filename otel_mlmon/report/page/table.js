// ---------------------------------------------------------------- the table of features

const COLUMNS = [
  { key: (f) => f.name.toLowerCase() },
  { key: (f) => f.type },
  { key: (f, row) => 4 - (["fault", "drift", "note"].indexOf(row.level) + 1 || 4) + (f.changed === null ? -1 : 0), down: true },
  { key: (f) => f.drift.effect, down: true },
  { key: (f) => f.drift.effect_lower, down: true },
  { key: (f) => f.drift.psi, down: true },
  { key: (f) => f.drift.wasserstein, down: true },
  { key: (f) => f.drift.ks, down: true },
  { key: (f) => f.current.missing, down: true },
];
const TSV = {
  feature: (f) => f.name, role: (f) => f.role, type: (f) => f.type, change: (f) => f.text, effect: (f) => f.drift.effect, at_least: (f) => f.drift.effect_lower,
  psi: (f) => f.drift.psi, wasserstein_sd: (f) => f.drift.wasserstein, ks: (f) => f.drift.ks, missing_reference: (f) => f.reference.missing, missing_current: (f) => f.current.missing,
};

let rows = []; // { at, feature, level, line, button, detail } in the order shown
let sorted = null; // { column, down }
let show = "all";

const sparks = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => drawSpark(e.target)), { rootMargin: "200px" });

function drawSpark(line) {
  sparks.unobserve(line);
  const { distribution } = data.features[line.at];
  const cell = line.lastElementChild;
  if (distribution && !cell.firstChild) cell.append(spark(distribution));
}

function prepareTable() {
  const table = document.getElementById("table");
  if (!table) return;
  rows = [...table.tBodies[0].rows].map((line, at) => {
    const name = line.cells[0].querySelector("span");
    const button = el("button", { type: "button", "aria-expanded": "false" });
    name.replaceWith(button);
    button.append(name);
    line.at = at;
    line.append(el("td"));
    sparks.observe(line);
    const row = { at, feature: data.features[at], level: line.className, line, button, detail: null };
    // The row is a larger target for a mouse; text in it can still be selected.
    line.addEventListener("click", (event) => {
      if (button.contains(event.target) || getSelection().isCollapsed) toggle(row);
    });
    return row;
  });
  [...table.tHead.rows[0].cells].slice(0, COLUMNS.length).forEach((head, column) => {
    const button = el("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(column));
  });
  document.getElementById("search").addEventListener("input", filter);
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => {
      show = button.dataset.show;
      filter();
    });
  }
  document.getElementById("copy").addEventListener("click", copyTable);
  addEventListener("resize", fitDetails);
  filter();
}

// ---------------------------------------------------------------- order and choice

/** First the way that tells most, then the other, then the order of the document. */
function sortBy(column) {
  const first = COLUMNS[column].down ?? false;
  if (sorted?.column !== column) sorted = { column, down: first };
  else sorted = sorted.down === first ? { column, down: !first } : null;
  rows.sort(sorted ? (a, b) => compare(a, b) || a.at - b.at : (a, b) => a.at - b.at);
  document.querySelectorAll("#table > thead th").forEach((head, i) => {
    if (sorted?.column === i) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  document.querySelector("#table > tbody").append(...rows.flatMap((row) => (row.detail ? [row.line, row.detail] : [row.line])));
}

/** What is not known comes last either way. */
function compare(a, b) {
  const { key } = COLUMNS[sorted.column];
  const [left, right] = [key(a.feature, a), key(b.feature, b)];
  if (left === null || right === null) return (left === null) - (right === null);
  return (sorted.down ? -1 : 1) * (left < right ? -1 : left > right ? 1 : 0);
}

function filter() {
  const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", button.dataset.show === show);
  let shown = 0;
  for (const row of rows) {
    const text = `${row.feature.name} ${row.feature.text}`.toLowerCase();
    const wanted = show === "all" || row.level === "fault" || (show === "changed" && row.level === "drift");
    row.line.hidden = !(wanted && words.every((word) => text.includes(word)));
    if (row.detail) row.detail.hidden = row.line.hidden;
    shown += !row.line.hidden;
  }
  document.getElementById("shown").textContent = shown === rows.length ? many(shown, "feature") : `${count(shown)} of ${many(rows.length, "feature")}`;
  document.getElementById("none").hidden = shown > 0;
}

// ---------------------------------------------------------------- opening

function toggle(row) {
  if (row.detail) {
    row.detail.remove();
    row.detail = null;
  } else {
    const { content, draw } = detailOf(row.feature, data);
    row.detail = el("tr", { class: "detail", id: `d${row.at}` }, el("td", {}, content));
    row.line.after(row.detail);
    fitDetails();
    draw();
  }
  row.button.setAttribute("aria-expanded", row.detail !== null);
  row.line.classList.toggle("open", row.detail !== null);
}

/** A detail spans the columns that are there: in a narrow window some are not. */
function fitDetails() {
  const across = [...document.querySelectorAll("#table > thead th")].filter((head) => head.offsetParent).length;
  for (const row of rows) if (row.detail) row.detail.cells[0].colSpan = across;
}

function openFeature(at) {
  const row = rows.find((one) => one.at === at);
  if (!row) return;
  if (row.line.hidden) {
    document.getElementById("search").value = "";
    show = "all";
    filter();
  }
  if (!row.detail) toggle(row);
  row.line.scrollIntoView({ block: "start" });
  row.button.focus({ preventScroll: true });
}

// ---------------------------------------------------------------- copying

async function copyTable() {
  const lines = rows.filter((row) => !row.line.hidden).map(({ feature }) => Object.values(TSV).map((cell) => String(cell(feature) ?? "").replace(/[\t\r\n]+/g, " ")));
  const text = [Object.keys(TSV), ...lines].map((cells) => cells.join("\t")).join("\n");
  const done = await copyText(`${text}\n`);
  document.getElementById("shown").textContent = done ? `Copied ${many(lines.length, "row")}` : "The browser does not let the page copy";
}
