// ---------------------------------------------------------------- charts

const MARGIN = { left: 52, right: 20 };

/** Draws into a container now and whenever its width changes. */
const widths = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) target.redraw(Math.floor(contentRect.width));
});

function chart(container, label, draw) {
  let drawn = 0;
  container.redraw = (width) => {
    if (width < 40 || width === drawn) return;
    drawn = width;
    const figure = draw(width);
    figure.setAttribute("role", "img");
    figure.setAttribute("aria-label", label);
    // Plot names each layer; inside an image these names belong to nothing.
    for (const layer of figure.querySelectorAll("g[aria-label]")) layer.removeAttribute("aria-label");
    container.replaceChildren(figure);
  };
  widths.observe(container);
  return container;
}

function plot(width, options) {
  return Plot.plot({
    width,
    marginLeft: MARGIN.left,
    marginRight: MARGIN.right,
    style: { fontSize: "11px", fontFamily: "inherit", background: "none", color: "var(--soft)", overflow: "visible" },
    ...options,
  });
}

/** Start and end of each period, in UTC. */
function spans(periods) {
  const unit = { day: d3.utcDay, week: d3.utcWeek, month: d3.utcMonth }[periods.unit];
  return periods.starts.map((text) => {
    const start = new Date(`${text}T00:00:00Z`);
    // A week is seven days from its own start, on whichever weekday that is.
    return { start, end: periods.unit === "week" ? d3.utcDay.offset(start, 7) : unit.offset(start, 1), text };
  });
}

function timeScale(all) {
  return { type: "utc", domain: [d3.min(all, (s) => s.start), d3.max(all, (s) => s.end)], label: null, grid: false };
}

function percent(part) {
  return `${d3.format(".3~g")(part * 100)}\u00a0%`;
}

function countScale(width, top) {
  return { label: null, ticks: 3, tickFormat: (n) => (Number.isInteger(n) ? d3.format(n < 1e4 ? "," : ".2~s")(n) : ""), domain: [0, top || 1], nice: true };
}

// ---------------------------------------------------------------- over time

function drawRows(container, data) {
  const { unit, rows } = data.periods;
  const bars = spans(data.periods).map((span, i) => ({ ...span, rows: rows[i] }));
  const [low, high] = d3.extent(rows);
  const label = `Rows of ${many(rows.length, unit)}, ${count(low ?? 0)} to ${count(high ?? 0)} each.`;
  chart(container, label, (width) =>
    plot(width, {
      height: 104, marginTop: 8, marginBottom: 30,
      x: timeScale(bars), y: countScale(width, high),
      marks: [
        Plot.rectY(bars, { x1: "start", x2: "end", y: "rows", fill: "var(--reference)", inset: rows.length > 120 ? 0 : 0.5, title: (d) => `${d.text}\n${many(d.rows, "row")}`, tip: true }),
        Plot.ruleY([0], { stroke: "var(--line)" }),
      ],
    }),
  );
}

function drawChanges(container, data) {
  const all = spans(data.periods).map((span, i) => {
    const said = data.features.map((f) => f.periods?.changed[i] ?? null);
    return { ...span, changed: said.filter((c) => c === true).length, known: said.filter((c) => c !== null).length };
  });
  const top = d3.max(all, (d) => d.changed) ?? 0;
  const some = all.filter((d) => d.changed).length;
  const label = `Changed features in ${many(all.length, data.periods.unit)}: some in ${count(some)}, at most ${count(top)} of ${count(data.features.length)}.`;
  chart(container, label, (width) =>
    plot(width, {
      height: 104, marginTop: 8, marginBottom: 30,
      x: timeScale(all), y: countScale(width, Math.max(top, 3)),
      marks: [
        Plot.rectY(all, { x1: "start", x2: "end", y: "changed", fill: "var(--heat)", inset: all.length > 120 ? 0 : 0.5, title: (d) => `${d.text}\n${count(d.changed)} of ${many(d.known, "feature")} changed`, tip: true }),
        Plot.ruleY([0], { stroke: "var(--line)" }),
      ],
    }),
  );
}

// ---------------------------------------------------------------- one feature

/** Effects from their lower bounds upwards over time, and the tolerance they are held against. */
function drawEffects(container, feature, data) {
  const { effect, effect_lower: lower, changed } = feature.periods;
  const all = spans(data.periods).map((span, i) => ({ ...span, effect: effect[i], lower: lower[i], changed: changed[i] }));
  const known = all.filter((d) => d.effect !== null);
  const tolerance = data.settings.tolerance;
  const moved = known.filter((d) => d.changed).length;
  const label = `Effect in ${many(all.length, data.periods.unit)}: above the tolerance in ${count(moved)}, at most ${measure(d3.max(known, (d) => d.effect) ?? 0)}.`;
  const centre = (d) => new Date((+d.start + +d.end) / 2);
  chart(container, label, (width) =>
    plot(width, {
      height: 158, marginTop: 10, marginBottom: 30,
      x: timeScale(all), y: effectScale(known, tolerance),
      marks: [
        Plot.ruleY([0], { stroke: "var(--line)" }),
        Plot.ruleY([tolerance], { stroke: "var(--drift)", strokeDasharray: "4 3" }),
        Plot.ruleX(known, { x: centre, y1: (d) => Math.max(d.lower ?? d.effect, 0), y2: (d) => Math.max(d.effect, 0), stroke: tint, strokeWidth: 2 }),
        Plot.dot(known, { x: centre, y: (d) => Math.max(d.effect, 0), r: 3, fill: (d) => (d.changed ? "var(--heat)" : "var(--panel)"), stroke: tint, strokeWidth: 1.5, title: (d) => `${d.text}\neffect ${measure(d.effect)}\nat least ${measure(d.lower)}`, tip: true }),
      ],
    }),
  );
}

function tint(d) {
  return d.changed ? "var(--heat)" : "var(--reference)";
}

/** Effects span decades: in proportion near the tolerance, by decades far above it. */
function effectScale(known, tolerance) {
  const top = Math.max(d3.max(known, (d) => d.effect) ?? 0, 2 * tolerance);
  const scale = { label: null, domain: [0, top * 1.05], grid: false };
  if (top <= 20 * tolerance) return { ...scale, ticks: 4, tickFormat: (n) => d3.format("~g")(n) };
  const decades = d3.range(0, 12).map((n) => tolerance * 10 ** n).filter((n) => n <= top);
  return { ...scale, type: "symlog", constant: tolerance, ticks: decades, tickFormat: (n) => d3.format(".2~g")(n) };
}

function drawMissing(container, feature, data) {
  const all = spans(data.periods).map((span, i) => ({ ...span, missing: feature.periods.missing[i] }));
  const known = all.filter((d) => d.missing !== null);
  const top = d3.max(known, (d) => d.missing) ?? 0;
  const label = `Missing values in ${many(all.length, data.periods.unit)}: at most ${share(top)}.`;
  chart(container, label, (width) =>
    plot(width, {
      height: 78, marginTop: 8, marginBottom: 30,
      x: timeScale(all),
      y: { label: null, domain: [0, Math.max(top, 0.01)], ticks: 2, tickFormat: percent },
      marks: [
        Plot.rectY(known, { x1: "start", x2: "end", y: "missing", fill: "var(--fault)", inset: 0.5, title: (d) => `${d.text}\n${share(d.missing)} missing`, tip: true }),
        Plot.ruleY([0], { stroke: "var(--line)" }),
      ],
    }),
  );
}

function drawSegments(container, feature, data) {
  const { effect, effect_lower: lower, changed } = feature.segments;
  const all = data.segments.names.map((name, i) => ({ i, name, effect: effect[i], lower: lower[i], changed: changed[i], rows: data.segments.current_rows[i] }));
  const known = all.filter((d) => d.effect !== null);
  const tolerance = data.settings.tolerance;
  const label = `Effect in ${many(all.length, "segment")}: above the tolerance in ${count(known.filter((d) => d.changed).length)}.`;
  chart(container, label, (width) => {
    const letters = Math.min(Math.floor(width / 22), d3.max(all, (d) => d.name.length) ?? 1);
    return plot(width, {
      height: 30 + 18 * all.length, marginTop: 4, marginBottom: 24, marginLeft: 16 + 6.4 * letters,
      x: effectScale(known, tolerance),
      y: { type: "band", domain: d3.range(all.length), label: null, tickFormat: (i) => shorten(all[i].name, letters), tickSize: 0 },
      marks: [
        Plot.ruleX([0], { stroke: "var(--line)" }),
        Plot.ruleX([tolerance], { stroke: "var(--drift)", strokeDasharray: "4 3" }),
        Plot.ruleY(known, { y: "i", x1: (d) => Math.max(d.lower ?? d.effect, 0), x2: (d) => Math.max(d.effect, 0), stroke: tint, strokeWidth: 2 }),
        Plot.dot(known, { y: "i", x: (d) => Math.max(d.effect, 0), r: 3.5, fill: (d) => (d.changed ? "var(--heat)" : "var(--panel)"), stroke: tint, strokeWidth: 1.5, title: (d) => `${d.name}\neffect ${measure(d.effect)}\nat least ${measure(d.lower)}\n${many(d.rows, "row")}`, tip: true }),
        Plot.text(all.filter((d) => d.effect === null), { y: "i", text: () => "too few values", frameAnchor: "left", dx: 6, fill: "var(--soft)" }),
      ],
    });
  });
}
