// One measure of the recorded groups against another. What a point says is the page's: describe(group).

function showScatter(groups, x, y, { traces = byState, upwards = {}, remark = "" } = {}) {
  const shown = groups.filter((group) => known(x.of(group)) && known(y.of(group)));
  if (!shown.length) {
    $("rho").textContent = "";
    return undraw($("scatter"), groups.length ? "No group has both values." : "No group was recorded.");
  }
  const rho = spearman(shown.map(x.of), shown.map(y.of));
  $("rho").textContent = `Spearman ρ = ${two(rho)} over ${num(shown.length)} groups${remark}`;
  const make = () => ({
    data: traces(shown, x, y),
    layout: { xaxis: axis(x.name), yaxis: axis(y.name, upwards), hovermode: "closest", ...legend() },
  });
  return draw($("scatter"), make, openGroup);
}

function dots(groups, x, y, name, marker) {
  return {
    type: "scatter",
    mode: "markers",
    name,
    x: groups.map(x.of),
    y: groups.map(y.of),
    customdata: groups.map((group) => group.index),
    hovertext: groups.map(describe),
    hoverinfo: "text",
    marker: { size: 8, opacity: 0.75, ...marker },
  };
}

function byState(groups, x, y) {
  const [live, dead] = [groups.filter((group) => !group.dead), groups.filter((group) => group.dead)];
  return [
    dots(dead, x, y, `dead (${dead.length})`, { color: color("dead"), symbol: "x-thin-open", line: { width: 1.5 } }),
    dots(live, x, y, `live (${live.length})`, { color: color("live"), symbol: "circle" }),
  ];
}

/** A button as strong in colour as a correlation, blue above 0 and orange below. */
function heatButton(rho, ...children) {
  const hue = rho < 0 ? "negative" : "positive";
  const style = `--strength: ${(60 * Math.min(Math.abs(rho ?? 0), 1)).toFixed(0)}%; --hue: var(--${hue})`;
  return el("button", { type: "button", style, title: "show this pair" }, ...children);
}
