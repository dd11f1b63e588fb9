const runChoices = () => document.querySelectorAll("[data-run-choice] select");

/** Show the groups of this run, in the comparison of signals and in the browser. */
function chooseRun(index) {
  for (const select of runChoices()) fill(select, runs.map((run, i) => [String(i), run.name]), String(index));
  view.run = index;
  view.threshold = threshold();
  resetBrowser();
  resetSignals();
}

function start() {
  for (const run of runs) run.groups.forEach((group, index) => Object.assign(group, { index }));
  showOverview();
  $("outcome").replaceChildren(outcome());
  showCurves();
  startBrowser();
  startSignals();
  for (const select of runChoices()) select.addEventListener("input", () => chooseRun(Number(select.value)));
  chooseRun(0);
  document.documentElement.dataset.ready = String(Math.round(performance.now())); // milliseconds it took
}

start();
