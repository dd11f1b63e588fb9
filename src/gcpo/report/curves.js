// Metrics over steps, one colour a run. A curve is declared in the page by data-metric.

const DERIVED = {
  // The share of a step that the method itself costs.
  overhead: ({ metrics }) =>
    metrics["gcpo/overhead_s"]?.map((spent, i) => {
      const step = metrics.step_time?.[i];
      return known(spent) && step > 0 ? spent / step : null;
    }),
};

const column = (run, name) => DERIVED[name]?.(run) ?? run.metrics[name] ?? [];

function showCurves() {
  const signals = metricNames("gcpo/signal/");
  $("signal-curves").replaceChildren(
    ...signals.map((name) => figure(plain(name.slice("gcpo/signal/".length)), name)),
    signals.length ? "" : empty("No signal was logged: this recipe may not use one."),
  );
  for (const legend of document.querySelectorAll("[data-legend]")) legend.replaceChildren(...runLegend());
  showOtherCurves();
  for (const node of document.querySelectorAll("[data-metric]")) drawCurve(node);
}

const metricNames = (prefix) => [
  ...new Set(runs.flatMap((run) => Object.keys(run.metrics)).filter((name) => name.startsWith(prefix))),
];

const runLegend = () =>
  runs.length > 1 ? runs.map((run, i) => el("span", {}, swatch(i), run.name)) : [];

function figure(title, metric) {
  return el("figure", {}, el("h3", {}, title), el("div", { class: "plot small", "data-metric": metric }));
}

/** The metrics without a panel of their own. */
function showOtherCurves() {
  const panels = [...document.querySelectorAll("[data-metric]")];
  const shown = new Set(panels.flatMap((node) => Object.values(node.dataset)));
  const names = metricNames("").filter((name) => !shown.has(name) && name !== "step" && name !== "time");
  $("other-curves").replaceChildren(
    ...names.map((name) => figure(name, name)),
    names.length ? "" : empty("Every logged metric is shown above."),
  );
}

function drawCurve(node) {
  const { metric, low, high, format } = node.dataset;
  if (!runs.some((run) => column(run, metric).some(known))) return undraw(node, "Not logged in this run.");
  const share = format === "percent";
  return draw(node, () => ({
    data: runs.flatMap((run, i) => [...band(run, i, low, high), ...curve(run, i, metric, share)]),
    layout: {
      xaxis: stepAxis(),
      yaxis: axis("", { ...(share ? { tickformat: ".0%", rangemode: "tozero" } : {}), ...flatRange(metric) }),
      hovermode: "x",
    },
  }));
}

/** Whole steps only: a short run would otherwise get a tick at step 1.5. */
function stepAxis() {
  const last = largest(runs.flatMap((run) => run.metrics.step ?? []));
  return axis("step", last < 8 ? { dtick: 1 } : {});
}

/** A range for a curve that never changes; Plotly would show a constant 0.00001 between −1 and 1. */
function flatRange(metric) {
  const values = [...new Set(runs.flatMap((run) => column(run, metric)).filter(known))];
  if (values.length !== 1) return {};
  const end = 2 * values[0] || 1;
  return { range: [Math.min(end, 0), Math.max(end, 0)] };
}

/** The steps that log a metric, and its values; steps that use a batch once more draw nothing, and say nothing of it. */
function logged(run, name) {
  const values = column(run, name);
  const there = [...values.keys()].filter((i) => known(values[i]));
  return [there.map((i) => run.metrics.step[i]), there.map((i) => values[i])];
}

/** The raw curve, faint, under the mean of its last steps. */
function curve(run, index, metric, share) {
  const [x, raw] = logged(run, metric);
  const line = { color: seriesColor(index), width: 2 };
  const format = share ? ".1%" : ".4~g";
  const name = runs.length > 1 ? `${markup(run.name)}: ` : "";
  const base = { x, type: "scatter", mode: raw.length > 1 ? "lines" : "markers", line, marker: { color: line.color } };
  return [
    { ...base, y: raw, opacity: 0.3, line: { ...line, width: 1 }, hoverinfo: "skip" },
    {
      ...base,
      y: smooth(raw, smoothing(raw.length)),
      customdata: raw,
      hovertemplate: `${name}%{y:${format}}, this step %{customdata:${format}}<extra></extra>`,
    },
  ];
}

/** How many steps a smoothed point averages. */
const smoothing = (steps) => Math.min(Math.max(Math.round(steps / 20), 1), 50);

/** The area between two metrics, smoothed like the curve it surrounds. */
function band(run, index, low, high) {
  if (!low || !column(run, low).length || !column(run, high).length) return [];
  const edge = (name) => {
    const [x, raw] = logged(run, name);
    const y = smooth(raw, smoothing(raw.length));
    return { x, y, type: "scatter", mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  };
  return [edge(low), { ...edge(high), fill: "tonexty", fillcolor: `${seriesColor(index)}22` }];
}
