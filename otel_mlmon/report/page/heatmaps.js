// ---------------------------------------------------------------- heatmaps

const HEAT_ROWS = 30;

/** Those that moved most: the greatest lower bound first. */
function hottest(features, part) {
  const known = features.map((feature, at) => ({ feature, at })).filter(({ feature }) => feature[part]);
  return d3.sort(known, (d) => -(d.feature.drift.effect_lower ?? -Infinity)).slice(0, HEAT_ROWS);
}

/** Colour of an effect: nothing below a tenth of the tolerance, all of it at the top, by decades between. */
function heatOf(tolerance, top) {
  const scale = d3.scaleLog([tolerance / 10, Math.max(top, tolerance * 10)], [4, 100]).clamp(true);
  return (effect) => `color-mix(in oklab, var(--heat) ${Math.round(effect > 0 ? scale(effect) : 4)}%, var(--cold))`;
}

function heatLegend(colour, tolerance, top) {
  const end = Math.max(top, tolerance * 10);
  const steps = d3.range(9).map((i) => (tolerance / 10) * (end / (tolerance / 10)) ** (i / 8));
  const swatches = steps.map((effect) => {
    const swatch = el("i");
    swatch.style.background = colour(effect);
    return swatch;
  });
  return el(
    "p", { class: "scale" },
    el("span", {}, `D ${d3.format(".1~g")(tolerance / 10)}`), el("span", { class: "ramp", "aria-hidden": "true" }, ...swatches), el("span", {}, d3.format(".2~g")(end)),
    el("span", { class: "key" }, el("i", { class: "dot" }), "changed"), el("span", { class: "key" }, el("i", { class: "few" }), "too few values"),
  );
}

/**
 * Features x periods or segments.
 * @param columns the names across, with their place where they are periods
 */
function drawHeat(container, data, part, columns, what) {
  const shown = hottest(data.features, part);
  const tolerance = data.settings.tolerance;
  const cells = shown.flatMap(({ feature, at }, row) =>
    columns.map((column, i) => ({
      row, at, ...column, i,
      effect: feature[part].effect[i], lower: feature[part].effect_lower[i], changed: feature[part].changed[i],
      title: `${shorten(feature.name, 60)}\n${shorten(column.text, 60)}\n`,
    })),
  );
  const known = cells.filter((d) => d.effect !== null);
  const top = d3.max(known, (d) => d.effect) ?? 0;
  const colour = heatOf(tolerance, top);
  const across = columns[0]?.start ? { x1: "start", x2: "end" } : { x: "i" };
  const mark = columns[0]?.start ? Plot.barX : Plot.cell;
  const middle = columns[0]?.start ? (d) => new Date((+d.start + +d.end) / 2) : "i";
  const some = new Set(known.filter((d) => d.changed).map((d) => d.row)).size;
  const label = `Effect of ${many(shown.length, "feature")} in ${many(columns.length, what)}: ${count(some)} changed in at least one, the greatest effect is ${measure(top)}.`;
  chart(container, label, (width) => {
    const letters = Math.max(6, Math.min(Math.floor(width / 26), d3.max(shown, (d) => [...d.feature.name].length) ?? 6));
    const slant = !columns[0]?.start && columns.length * 70 > width - letters * 6.6;
    const figure = plot(width, {
      height: 46 + 17 * shown.length + (slant ? 52 : 0),
      marginLeft: 12 + 6.6 * letters, marginTop: 4, marginBottom: slant ? 90 : 32,
      x: columns[0]?.start
        ? timeScale(columns)
        : { type: "band", domain: d3.range(columns.length), label: null, tickSize: 0, padding: 0, tickRotate: slant ? -40 : 0, tickFormat: (i) => shorten(columns[i].text, 12) },
      y: { type: "band", domain: d3.range(shown.length), label: null, tickSize: 0, padding: 0, tickFormat: (i) => shorten(shown[i].feature.name, letters) },
      marks: [
        mark(cells, { ...across, y: "row", inset: 0.5, fill: "none", stroke: "var(--line)", strokeWidth: 0.5 }),
        mark(known, { ...across, y: "row", inset: 0.5, fill: (d) => colour(d.effect) }),
        Plot.dot(known.filter((d) => d.changed), { x: middle, y: "row", r: Math.min(1.6, (width - 7 * letters) / columns.length / 6), fill: "var(--text)" }),
        Plot.tip(cells, Plot.pointer({ x: middle, y: "row", title: (d) => d.title + (d.effect === null ? "too few values" : `effect ${measure(d.effect)}, at least ${measure(d.lower)}`) })),
      ],
    });
    figure.addEventListener("click", () => figure.value && openFeature(figure.value.at));
    return figure;
  });
  container.after(heatLegend(colour, tolerance, top));
  if (shown.length < data.features.length) {
    container.before(el("p", { class: "note" }, `The ${count(shown.length)} that moved most of ${count(data.features.length)}.`));
  }
}
