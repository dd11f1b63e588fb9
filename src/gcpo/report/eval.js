function start() {
  const [run] = runs; // an evaluation has its page for itself
  run.groups.forEach((group, index) => Object.assign(group, { index }));
  showOverview();
  showFigures(run);
  $("state").querySelector('[value="lost"]').hidden = !run.against;
  startBrowser();
  resetBrowser();
  document.documentElement.dataset.ready = String(Math.round(performance.now())); // milliseconds it took
}

start();
