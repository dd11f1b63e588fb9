// Two measures of the recorded groups against each other, and what tells live groups from dead ones.

const chosen = { x: 0, y: 1 }; // measures on the axes

function startSignals() {
  for (const id of ["scatter-x", "scatter-y", "scatter-color", "scatter-state"]) {
    $(id).addEventListener("input", () => {
      [chosen.x, chosen.y] = [Number($("scatter-x").value), Number($("scatter-y").value)];
      showSignals();
    });
  }
}

/** Offer the measures of the chosen run: at first the recipe's signal and the variance it should know, if it has them. */
function resetSignals() {
  const list = measures(viewed());
  const options = list.map(({ name }, i) => [String(i), name]);
  [chosen.x, chosen.y] = firstPair(viewed(), list);
  fill($("scatter-x"), options, String(chosen.x));
  fill($("scatter-y"), options, String(chosen.y));
  showSignals();
}

function firstPair(run, list) {
  const variance = list.findIndex(({ name }) => name === "gradient variance");
  const steered = run.signals.indexOf(run.signal);
  if (run.groups.some((group) => known(list[variance].of(group)))) return [Math.max(steered, 0), variance];
  return run.signals.length > 1 ? [0, 1] : [list.length - 1, 0];
}

function showSignals() {
  const state = $("scatter-state").value;
  const groups = viewed().groups.filter((group) => state === "all" || group.dead === (state === "dead"));
  const list = measures(viewed());
  $("correlations").replaceChildren(groups.length ? correlations(groups, list) : empty("No group was recorded."));
  $("separation").replaceChildren(separations(viewed().groups, list));
  const traces = $("scatter-color").value === "weight" ? byWeight : byState;
  showScatter(groups, list[chosen.x], list[chosen.y], { traces }); // last: it is as high as the tables beside it
}

function byWeight(groups, x, y) {
  const trace = {
    ...dots(groups, x, y, "", {
      color: groups.map((group) => group.weight),
      colorscale: "Cividis",
      showscale: true,
      colorbar: { title: { text: "weight" }, thickness: 12 },
      symbol: groups.map((group) => (group.dead ? "x" : "circle")),
      line: { color: color("muted"), width: 0.5 }, // keeps dark points visible on a dark page
    }),
    showlegend: false,
  };
  return [trace];
}

/** A triangle of Spearman correlations; a cell is a button that puts its pair on the axes. */
function correlations(groups, list) {
  const columns = list.map((measure) => groups.map(measure.of));
  const cell = (i, j) => (j < i ? rhoButton(spearman(columns[i], columns[j]), i, j) : "");
  return table(
    ["Measure", ...list.slice(0, -1).map((_, j) => String(j + 1))],
    list.map(({ name }, i) => [`${i + 1} ${name}`, ...list.slice(0, -1).map((_, j) => cell(i, j))]),
    { class: "scroll matrix", "aria-label": "Spearman correlations" },
  );
}

function rhoButton(rho, i, j) {
  const button = heatButton(rho, two(rho));
  button.addEventListener("click", () => {
    [$("scatter-x").value, $("scatter-y").value] = [String(j), String(i)];
    [chosen.x, chosen.y] = [j, i];
    showSignals();
  });
  return button;
}

function separations(groups, list) {
  const [live, dead] = [groups.filter((group) => !group.dead), groups.filter((group) => group.dead)];
  if (!live.length || !dead.length) return empty("This needs at least one live and one dead group.");
  const row = ({ name, of }) => {
    const [high, low] = [live.map(of), dead.map(of)];
    return [name, num(median(high)), num(median(low)), percent(separation(high, low), 0)];
  };
  const head = ["Measure", `Live (${num(live.length)})`, `Dead (${num(dead.length)})`, "Live higher"];
  return table(head, list.map(row), { "aria-label": "Live groups against dead ones" });
}
