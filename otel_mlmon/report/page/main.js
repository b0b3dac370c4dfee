// ---------------------------------------------------------------- start

let data = null; // the document

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  document.getElementById("theme").textContent = isDark() ? "Light theme" : "Dark theme";
}

function prepareTheme() {
  nameTheme();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  document.getElementById("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    nameTheme();
    try {
      localStorage.setItem("otel-mlmon-theme", theme);
    } catch {} // it holds until the page is closed
  });
}

function run(text) {
  document.head.append(Object.assign(document.createElement("script"), { textContent: text }));
}

function drawOverview() {
  const draw = (id, how) => {
    const container = document.getElementById(id);
    if (container) how(container);
  };
  draw("rows", (container) => drawRows(container, data));
  draw("changes", (container) => drawChanges(container, data));
  draw("by-period", (container) => drawHeat(container, data, "periods", spans(data.periods), data.periods.unit));
  draw("by-segment", (container) => drawHeat(container, data, "segments", data.segments.names.map((text) => ({ text })), "segment"));
}

function openNamed() {
  const at = /^#f(\d+)$/.exec(location.hash)?.[1];
  if (at !== undefined) openFeature(Number(at));
}

async function start() {
  prepareTheme();
  const [text, ...libraries] = await Promise.all([...document.querySelectorAll("#document, .packed")].map(unpack));
  data = JSON.parse(text);
  libraries.forEach(run);
  document.getElementById("download").addEventListener("click", () => save("comparison.json", "application/json", text));
  prepareTable();
  drawOverview();
  addEventListener("hashchange", openNamed);
  for (const link of document.querySelectorAll('ol a[href^="#f"]')) link.addEventListener("click", () => queueMicrotask(openNamed));
  // Rows that were never in sight have no picture yet.
  const print = () => {
    rows.forEach((row) => drawSpark(row.line));
    fitDetails();
  };
  addEventListener("beforeprint", print);
  matchMedia("print").addEventListener("change", print);
  openNamed();
  document.documentElement.dataset.ready = "";
  performance.mark("ready");
}

start().catch((error) => {
  const trouble = document.getElementById("trouble");
  trouble.textContent = `The pictures could not be drawn: ${error.message}`;
  trouble.hidden = false;
});
