function start() {
  const [run] = runs; // a probe has its page for itself
  run.groups.forEach((group, index) => Object.assign(group, { index }));
  view.threshold = threshold();
  showOverview();
  showGaps(run);
  startBrowser();
  resetBrowser();
  startTracking();
  showAlignment(run);
  document.documentElement.dataset.ready = String(Math.round(performance.now())); // milliseconds it took
}

start();
