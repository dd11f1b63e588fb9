// Recipes compared: what they reached, on which way, and at what cost.

const [bench] = runs; // a bench has its page for itself
const COSTS = { steps: "steps", samples: "responses sampled", tokens: "tokens generated", seconds: "seconds of training" };
const SCORES = { final: "after training", area: "on the way" };
const recipes = Object.keys(bench.scores);

function facts({ cells: [finished, all], baseline, problems }) {
  return [
    ["Runs", `${num(finished)} of ${num(all)}`],
    ["Recipes", num(recipes.length)],
    ["Tasks and models", num(Object.keys(problems).length)],
    ["Baseline", baseline],
  ];
}

const ofScores = (read) => Object.entries(SCORES).map(([score, name]) => ({ name, estimates: read(score) }));

function showScores() {
  const cells = (name) =>
    Object.keys(SCORES).flatMap((score) => ["iqm", "mean"].map((how) => estimated(bench.scores[name][score]?.[how], share)));
  const heads = Object.values(SCORES).flatMap((name) => [`IQM ${name}`, `Mean ${name}`]);
  const series = ofScores((score) => recipes.map((name) => bench.scores[name][score]?.iqm));
  if (!recipes.length) undraw($("scores"), "No run has finished.");
  else drawIntervals($("scores"), recipes, series, axis("interquartile mean of accuracy", { tickformat: ".0%" }), share);
  const rows = recipes.map((name) => [name, ...cells(name)]);
  $("scores-table").replaceChildren(table(["Recipe", ...heads], rows, { "aria-label": "Accuracy of recipes" }));
}

function showDifferences() {
  const others = recipes.filter((name) => name !== bench.baseline);
  const compared = (name, score) => bench.comparisons[score]?.[name];
  const series = ofScores((score) => others.map((name) => compared(name, score)?.difference));
  if (!others.length) undraw($("differences"), "There is nothing to compare.");
  else drawIntervals($("differences"), others, series, axis("difference in accuracy", { tickformat: ".1%" }), gain);
  const rows = others.flatMap((name) =>
    Object.entries(SCORES).map(([score, said]) => [name, said, ...comparison(compared(name, score))]),
  );
  const head = ["Recipe", "Accuracy", "Difference", "P", "Better, worse", "p", "p (Holm)"];
  $("differences-table").replaceChildren(table(head, rows, { "aria-label": "Differences from the baseline" }));
}

function comparison(row) {
  if (!row) return ["–", "–", "–", "–", "–"];
  const sides = `${num(row.better)}, ${num(row.worse)} of ${num(row.pairs)}`;
  return [estimated(row.difference, gain), estimated(row.probability_of_improvement, two), sides, num(row.p), num(row.p_holm)];
}

function showProblems() {
  const rows = Object.entries(bench.problems).flatMap(([problem, { recipes: rows, comparisons }]) =>
    Object.entries(rows).map(([name, { final, runs: count }]) => {
      const row = comparisons.final?.[name];
      return [problem, name, num(count), estimated(final, share), estimated(row?.difference, gain), num(row?.p_holm)];
    }),
  );
  const head = ["Task and model", "Recipe", "Runs", "Accuracy", "Difference", "p (Holm)"];
  $("problems-table").replaceChildren(table(head, rows, { "aria-label": "Each task and model" }));
}

function showCurves() {
  const names = Object.keys(bench.problems);
  fill($("problem"), names.map((name) => [name, name]), names[0]);
  fill($("cost"), Object.entries(COSTS), "steps");
  $("legend").replaceChildren(...recipes.map((name, i) => el("span", {}, swatch(i), name)));
  for (const id of ["problem", "cost"]) $(id).addEventListener("change", drawCurves);
  drawCurves();
}

function drawCurves() {
  const problem = bench.problems[$("problem").value];
  if (!problem || !Object.keys(problem.recipes).length) return undraw($("curves"), "No run has finished.");
  const cost = $("cost").value;
  const shown = Object.entries(problem.recipes);
  return draw($("curves"), () => ({
    data: shown.flatMap(([name, { curve }]) => course(name, curve, cost, recipes.indexOf(name))),
    layout: {
      xaxis: axis(COSTS[cost]),
      yaxis: axis("accuracy", { tickformat: ".0%" }),
      shapes: known(problem.target) ? [level(problem.target)] : [],
      hovermode: "closest",
    },
  }));
}

/** A mean curve over its band. */
function course(name, curve, cost, index) {
  const base = { x: curve[cost], type: "scatter", mode: "lines" };
  const edge = (side) => ({ ...base, y: curve.ci95.map((ends) => ends[side]), line: { width: 0 }, hoverinfo: "skip" });
  const line = { color: seriesColor(index), width: 2, dash: ["solid", "dash", "dot"][Math.floor(index / 8) % 3] };
  return [
    edge(0),
    { ...edge(1), fill: "tonexty", fillcolor: `${seriesColor(index)}22` },
    { ...base, y: curve.accuracy, line, hovertemplate: `${markup(name)}: %{y:.1%} at %{x:,.4~g}<extra></extra>` },
  ];
}

const level = (y) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: color("muted"), width: 1, dash: "dot" } });

function showCosts() {
  const kinds = Object.keys(COSTS);
  const rows = Object.entries(bench.problems).flatMap(([problem, { target, recipes: rows, ratios }]) =>
    Object.entries(rows).map(([name, { reached, censored, median: middle }]) => [
      problem,
      percent(target),
      name,
      known(reached) ? `${num(reached)} of ${num(reached + censored)}` : "–",
      ...kinds.map((kind) => num(middle[kind])),
      ...kinds.map((kind) => ratio(ratios[name]?.[kind])),
      name in ratios ? `${ratios[name].reached.map(num).join(" and ")} of ${num(ratios[name].pairs)}` : "–",
    ]),
  );
  const head = ["Task and model", "Target", "Recipe", "Reached", ...kinds.map(capital), ...kinds.map((kind) => `Ratio of ${kind}`), "Pairs"];
  $("costs-table").replaceChildren(table(head, rows, { "aria-label": "Cost to the target" }));
}

/** A ratio and its interval; what is not known of it is infinite. */
function ratio(estimate) {
  const factor = (x) => (known(x) ? two(x) : "∞");
  return estimate ? value(factor(estimate.value), estimate.ci95?.map(factor).join(" to ")) : "–";
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const share = (value) => percent(value); // not of its place in a list

const told = (settings) => Object.entries(settings).map(([name, value]) => `${plain(name)} ${value}`).join(", ");

function showTuning() {
  const rows = Object.entries(bench.tuning).flatMap(([problem, rows]) =>
    Object.entries(rows).map(([name, { chosen, pending, edges, candidates }]) => [
      problem,
      name,
      told(chosen) || (pending ? `not yet: ${num(pending)} tuning runs to go` : "none: all failed"),
      edges.map(plain).join(", ") || "–",
      candidates.map(({ settings, score }) => `${told(settings)}: ${percent(score)}`).join("; ") || "no choice",
    ]),
  );
  const head = ["Task and model", "Recipe", "Chosen", "End of its grid", "Candidates"];
  $("tuning-table").replaceChildren(table(head, rows, { "aria-label": "Tuning" }));
}

function start() {
  showOverview();
  showScores();
  showDifferences();
  showProblems();
  showCurves();
  showCosts();
  showTuning();
  document.documentElement.dataset.ready = String(Math.round(performance.now())); // milliseconds it took
}

start();
