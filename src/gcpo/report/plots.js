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
