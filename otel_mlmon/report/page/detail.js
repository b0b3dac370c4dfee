// ---------------------------------------------------------------- distributions

/** Points of a step line through shares of bins of equal width. */
function steps({ low, high }, shares) {
  const width = (high - low) / shares.length;
  return [...shares.map((share, i) => ({ x: low + i * width, share })), { x: high, share: shares.at(-1) ?? 0 }];
}

/** Places of the categories with the most on either side, in the order of the document. */
function largest({ reference, current }, most) {
  const places = d3.sort(d3.range(reference.length), (i) => -Math.max(reference[i], current[i]));
  return d3.sort(places.slice(0, most));
}

function spark(distribution) {
  const [width, height] = [140, 24];
  const { reference, current } = distribution;
  const top = d3.max([...reference, ...current]) || 1;
  const y = d3.scaleLinear([0, top], [height, 2]);
  const picture = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  if (distribution.labels) {
    const first = largest(distribution, 14);
    const slot = Math.min(width / first.length, 24);
    first.forEach((label, i) => {
      for (const [kind, part, shift] of [["reference", reference[label], 0.08], ["current", current[label], 0.5]]) {
        picture.append(svg("rect", { class: kind, x: (i + shift) * slot, width: slot * 0.38, y: y(part), height: height - y(part) }));
      }
    });
    return picture;
  }
  const x = d3.scaleLinear([0, reference.length], [0, width]);
  const path = (shares) => `M0,${height}${shares.map((share, i) => `V${y(share).toFixed(1)}H${x(i + 1).toFixed(1)}`).join("")}V${height}`;
  picture.append(svg("path", { class: "reference", d: path(reference) }), svg("path", { class: "current", d: path(current) }));
  return picture;
}

function drawHistogram(container, feature) {
  const { distribution, reference, current } = feature;
  const sides = [steps(distribution, distribution.reference), steps(distribution, distribution.current)];
  const means = [reference.mean, current.mean].map((mean) => (mean !== null && mean >= distribution.low && mean <= distribution.high ? [mean] : []));
  const bins = distribution.reference.map((share, i) => ({ from: sides[0][i].x, to: sides[0][i + 1].x, reference: share, current: distribution.current[i] }));
  const label = `Histogram of ${shorten(feature.name, 60)}, mean ${value(reference.mean)} before and ${value(current.mean)} now.`;
  const area = (points, colour, opacity) => [
    Plot.areaY(points, { x: "x", y: "share", curve: "step-after", fill: colour, fillOpacity: opacity }),
    Plot.lineY(points, { x: "x", y: "share", curve: "step-after", stroke: colour, strokeWidth: 1.5 }),
  ];
  chart(container, label, (width) =>
    plot(width, {
      height: 220, marginTop: 12, marginBottom: 24,
      x: { label: null, domain: distribution.low < distribution.high ? [distribution.low, distribution.high] : undefined, ticks: width / 80, tickFormat: value },
      y: { label: null, ticks: 4, tickFormat: percent, grid: true },
      marks: [
        ...area(sides[0], "var(--reference)", 0.28),
        ...area(sides[1], "var(--current)", 0.14),
        Plot.ruleY([0], { stroke: "var(--line)" }),
        Plot.ruleX(means[0], { stroke: "var(--reference)", strokeDasharray: "3 3" }),
        Plot.ruleX(means[1], { stroke: "var(--current)", strokeDasharray: "3 3" }),
        Plot.tip(bins, Plot.pointerX({ x: (d) => (d.from + d.to) / 2, y: (d) => Math.max(d.reference, d.current), title: (d) => `${value(d.from)} to ${value(d.to)}\nreference ${share(d.reference)}\ncurrent ${share(d.current)}` })),
      ],
    }),
  );
}

const LABELS = 24;

/** Categories as a table with paired bars, so that every share can be read and selected. */
function tableOfCategories(distribution) {
  const { labels, reference, current } = distribution;
  const top = d3.max([...reference, ...current]) || 1;
  const bar = (kind, part) => {
    const line = el("i", { class: kind });
    line.style.width = `${(part / top) * 100}%`;
    return line;
  };
  const rows = labels.map((label, i) =>
    el(
      "tr", {}, el("th", { scope: "row" }, label.trim() ? label : el("small", {}, "(no name)")),
      el("td", { class: "bars", "aria-hidden": "true" }, bar("reference", reference[i]), bar("current", current[i])),
      el("td", {}, share(reference[i])), el("td", {}, share(current[i])),
    ),
  );
  const first = largest(distribution, LABELS);
  const others = rows.filter((_, i) => !first.includes(i));
  const head = el("tr", {}, el("th", { scope: "col" }, "Category"), el("td", {}), el("th", { scope: "col" }, "Reference"), el("th", { scope: "col" }, "Current"));
  const table = el("table", { class: "categories" }, el("thead", {}, head), el("tbody", {}, ...first.map((i) => rows[i])));
  if (!others.length) return [table];
  const rest = el("table", { class: "categories" }, el("tbody", {}, ...others));
  return [table, el("details", {}, el("summary", {}, `${count(others.length)} more`), rest)];
}

// ---------------------------------------------------------------- figures

const MEASURES = [
  ["effect", "Effect D"], ["effect_lower", "at least"], ["p_value", "p-value of one test"], ["psi", "PSI"], ["psi_corrected", "PSI less chance"],
  ["js", "Jensen-Shannon"], ["ks", "Kolmogorov-Smirnov"], ["wasserstein", "Wasserstein, sd"], ["mean_shift", "Mean shift, sd"],
  ["hellinger", "Hellinger"], ["chi2", "χ²"], ["linf", "L∞"],
];
const SUMMARY = [["count", "Valid values", count], ["missing", "Missing", share], ["mean", "Mean", value], ["std", "Standard deviation", value], ["min", "Min", value], ["median", "Median", value], ["max", "Max", value]];

function tableOf(caption, heads, rows) {
  const cells = rows.map(([name, ...texts]) => el("tr", {}, el("th", { scope: "row" }, name), ...texts.map((text) => el("td", {}, text || "–"))));
  const head = el("tr", {}, el("td", {}), ...heads.map((text) => el("th", { scope: "col" }, text)));
  return el("table", { class: "values" }, el("caption", {}, caption), ...(heads.length > 1 ? [el("thead", {}, head)] : []), el("tbody", {}, ...cells));
}

function tablesOf(feature) {
  const both = SUMMARY.filter(([key]) => feature.reference[key] !== null || feature.current[key] !== null);
  const summary = both.map(([key, name, format]) => [name, ...[feature.reference[key], feature.current[key]].map((n) => (n === null ? "" : format(n)))]);
  const measures = MEASURES.map(([key, name]) => [name, key === "p_value" ? small(feature.drift[key]) : measure(feature.drift[key])]);
  const rates = Object.entries(feature.rates).map(([name, r]) => [name.replaceAll("_", " "), share(r.reference), share(r.current), share(r.lower), share(r.allowed)]);
  const tables = [tableOf("Values", ["Reference", "Current"], summary), tableOf("Measures", ["Value"], measures)];
  if (rates.length) tables.push(tableOf("Shares of values", ["Reference", "Current", "At least", "Allowed"], rates));
  return tables;
}

function small(p) {
  if (p === 0) return "0";
  return p === null ? "" : p < 1e-4 ? p.toExponential(1).replace("-", "−") : measure(p);
}

// ---------------------------------------------------------------- all of one feature

/** What a row opens to; `draw()` of the result fills in the pictures once it is in the page. */
function detailOf(feature, data) {
  const parts = [];
  const drawings = [];
  const picture = (title, draw, ...below) => {
    const container = el("div", { class: "chart" });
    parts.push(el("figure", {}, el("figcaption", {}, ...[title].flat()), container, ...below));
    drawings.push(() => draw(container, feature, data));
  };
  const { distribution } = feature;
  if (distribution?.labels) {
    parts.push(el("figure", {}, el("figcaption", {}, "Distribution", legend()), ...tableOfCategories(distribution)));
  } else if (distribution) {
    const beyond = (side, limit, [before, now]) => (before || now ? el("span", {}, `${side} ${value(limit)}: ${share(before)} → ${share(now)}`) : "");
    const said = [beyond("below", distribution.low, distribution.below), beyond("above", distribution.high, distribution.above)];
    picture(["Distribution", legend(), "dashed: means"], drawHistogram, el("p", { class: "beyond" }, ...said));
  }
  if (feature.periods && data.periods) {
    const over = ` in each ${data.periods.unit}`;
    picture(`Effect${over}, with its lower bound; dashed: tolerance`, drawEffects);
    if (feature.periods.missing.some((part) => part)) picture(`Missing${over}`, drawMissing);
  }
  if (feature.segments && data.segments) picture(`Effect by ${shorten(data.segments.column, 40)}; dashed: tolerance`, drawSegments);
  if (!parts.length) parts.push(el("p", { class: "quiet" }, "There is no distribution to draw."));
  const kind = [feature.role === "feature" ? "" : feature.role, feature.type, feature.transform === "identity" ? "" : `${feature.transform} of ${feature.column}`, { age: "in seconds", hour: "UTC", length: "in characters" }[feature.transform] ?? ""];
  const said = feature.text || (feature.changed === null ? "too few values to say" : feature.changed ? "changed" : "no change");
  const content = el(
    "div", { class: "inside" },
    el("header", {}, el("h3", {}, feature.name.trim() ? feature.name : "(no name)"), el("p", {}, kind.filter(Boolean).join(", "), " · ", el("b", {}, said), feature.since ? ` · since ${feature.since}` : "")),
    el("div", { class: "pictures" }, ...parts), el("div", { class: "tables" }, ...tablesOf(feature)),
  );
  return { content, draw: () => drawings.forEach((draw) => draw()) };
}

function legend() {
  return el("span", { class: "legend" }, el("i", { class: "swatch reference" }), "reference ", el("i", { class: "swatch current" }), "current");
}
