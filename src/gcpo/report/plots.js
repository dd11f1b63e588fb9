// A thin layer over Plotly: the page's look, and when a plot is drawn: once it comes near the window, so that a long
// page opens at once, and again with each change of colour scheme.

const plots = new Map(); // element -> {make, click}
const drawn = new Set(); // the elements that Plotly has drawn into
const touch = window.matchMedia("(pointer: coarse)").matches;

const near = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => render(target)),
  { rootMargin: "50%" },
);

/** Show in `node` the {data, layout} that `make` returns; `click` gets the customdata of a chosen point. */
function draw(node, make, click = null) {
  plots.set(node, { make, click });
  if (drawn.has(node)) render(node);
  else near.observe(node);
}

function render(node) {
  near.unobserve(node);
  if (!drawn.has(node)) node.replaceChildren();
  drawn.add(node);
  const { make, click } = plots.get(node);
  const { data, layout } = make();
  // No mode bar, logo or link: they would cover the plot or lead to the network.
  Plotly.react(node, data, { ...look(), ...layout }, { displayModeBar: false, displaylogo: false, responsive: true });
  node.removeAllListeners("plotly_click");
  if (click) node.on("plotly_click", (event) => click(event.points[0].customdata));
}

/** A sentence in place of the plot. */
function undraw(node, text) {
  near.unobserve(node);
  plots.delete(node);
  if (drawn.delete(node)) Plotly.purge(node);
  node.replaceChildren(empty(text));
}

window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(render));
window.addEventListener("beforeprint", () => [...plots.keys()].forEach(render));

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const seriesColor = (index) => color(`c${index % 8}`);

function look() {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: color("muted") },
    margin: { l: 52, r: 12, t: 8, b: 40 },
    showlegend: false,
    hoverlabel: {
      bgcolor: color("surface"),
      bordercolor: color("line"),
      font: { family: "system-ui, sans-serif", color: color("text"), size: 12 },
      align: "left",
    },
    dragmode: touch ? false : "zoom", // on a touch screen a drag scrolls the page
  };
}

function axis(title, more = {}) {
  return {
    title: { text: markup(title), standoff: 8 },
    gridcolor: color("line"),
    zeroline: false,
    ticklabelstandoff: 4,
    automargin: true,
    fixedrange: touch,
    nticks: 6,
    ...more,
  };
}

/** Text for Plotly, which reads its labels as a kind of HTML. */
function markup(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** The beginning of a text, cut into lines for a hover label. */
function excerpt(text, size = 240, width = 60) {
  const short = text.length > size ? `${text.slice(0, size)}…` : text;
  const lines = short.split("\n").flatMap((line) => line.match(new RegExp(`.{1,${width}}`, "gu")) ?? [""]);
  return lines.slice(0, 12).map(markup).join("<br>");
}

/** Estimates in their 95 % intervals: a row a name, a colour and symbol a series {name, estimates}. */
function drawIntervals(node, names, series, across, text) {
  node.style.height = `${5 + names.length * Math.max(1.5, 0.7 * series.length) + (series.length > 1 ? 2 : 0)}rem`;
  const shift = (k) => (0.6 * (k - (series.length - 1) / 2)) / series.length; // so that series lie side by side
  draw(node, () => ({
    data: series.map(({ name, estimates }, k) => intervals(names, estimates, name, k, shift(k), text)),
    layout: {
      xaxis: { ...across, zeroline: true, zerolinecolor: color("muted") },
      yaxis: axis("", {
        tickvals: names.map((_, i) => i),
        ticktext: names.map(markup),
        range: [names.length - 0.5, -0.5],
        showgrid: false,
      }),
      hovermode: "closest",
      ...(series.length > 1 ? legend() : {}),
    },
  }));
}

function intervals(names, estimates, series, k, shift, text) {
  const rows = names.map((_, i) => i).filter((i) => known(estimates[i]?.value));
  const reach = (side) =>
    rows.map((i) => Math.abs((estimates[i].ci95?.[side] ?? estimates[i].value) - estimates[i].value));
  const interval = ({ ci95 }) => (ci95 ? ` (${ci95.map(text).join(" to ")})` : "");
  return {
    type: "scatter",
    mode: "markers",
    name: markup(series),
    x: rows.map((i) => estimates[i].value),
    y: rows.map((i) => i + shift),
    error_x: { type: "data", symmetric: false, arrayminus: reach(0), array: reach(1), thickness: 1.5, width: 4 },
    marker: { size: 9, color: seriesColor(k), symbol: ["circle", "diamond", "square", "triangle-up"][k % 4] },
    hovertext: rows.map(
      (i) => `${markup(`${names[i]} ${series}`)}<br>${text(estimates[i].value)}${interval(estimates[i])}`,
    ),
    hoverinfo: "text",
  };
}

/** A legend above the plot, and the room for it. */
function legend() {
  return {
    showlegend: true,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    margin: { l: 56, r: 12, t: 36, b: 44 },
  };
}
