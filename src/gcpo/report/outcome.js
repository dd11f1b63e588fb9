// What a training run was, and what it changed.

function facts({ config, summary, metrics, groups }) {
  const steps = [largest(metrics.step ?? []), config.trainer?.max_steps].filter(known);
  return [
    ["Recipe", config.recipe],
    ["Task", config.task],
    ["Model", config.model],
    ["Seed", config.seed],
    ["Steps", steps.map(num).join(" of ") || null],
    ["Time", duration(summary.seconds ?? largest(metrics.time ?? []))],
    ["Groups recorded", num(groups.length)],
  ];
}

function outcome() {
  const measured = runs.filter((run) => known(run.summary.before?.accuracy) || known(run.summary.after?.accuracy));
  if (!measured.length) return empty("No accuracy was measured before or after training.");
  const rows = measured.map(({ name, summary: { before, after, change } }) => [
    name,
    accuracy(before),
    accuracy(after),
    known(change?.accuracy) ? difference(change) : "–",
  ]);
  return table(["Run", "Before", "After", "Change, in points"], rows, { "aria-label": "Accuracy before and after" });
}

function accuracy(measured) {
  if (!known(measured?.accuracy)) return "not measured";
  const { ci95, n } = measured;
  const interval = ci95 ? `${points(ci95[0])} to ${percent(ci95[1])}` : null;
  return value(percent(measured.accuracy), interval, known(n) ? `of ${num(n)}` : null);
}

function difference({ accuracy: by, ci95 }) {
  return value(gain(by), ci95 && `${gain(ci95[0])} to ${gain(ci95[1])}`);
}
