// What was run, how it ended, and what it changed.

const STATUS = {
  finished: "finished",
  interrupted: "interrupted",
  failed: "failed",
  unknown: "no summary: still running, or cut off",
};

function showOverview() {
  document.title = `gcpo report: ${runs.map((run) => run.name).join(", ")}`;
  $("title").textContent = runs.length === 1 ? runs[0].name : `${runs.length} runs compared`;
  $("runs").replaceChildren(...runs.map(runCard));
  $("outcome").replaceChildren(outcome());
  $("settings").replaceChildren(settings());
}

function runCard(run, index) {
  const { config, summary, metrics } = run;
  const status = STATUS[summary.status] ? summary.status : "unknown";
  const steps = [largest(metrics.step ?? []), config.trainer?.max_steps].filter(known);
  const facts = [
    ["Recipe", config.recipe],
    ["Task", config.task],
    ["Model", config.model],
    ["Seed", config.seed],
    ["Steps", steps.map(num).join(" of ") || null],
    ["Time", duration(summary.seconds ?? largest(metrics.time ?? []))],
    ["Groups recorded", num(run.groups.length)],
  ];
  return el(
    "article",
    { class: "run" },
    el("h2", {}, runs.length > 1 ? swatch(index) : null, run.name, badge(STATUS[status], status)),
    el("dl", {}, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, short(value))))),
    ...run.notes.map((note) => el("p", { class: "note" }, note)),
  );
}

/** A setting in a few words: the name or path of a nested one. */
function short(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "object") return String(value);
  return short(value.name ?? value.path ?? JSON.stringify(value));
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

/** A number and, smaller, what qualifies it. */
function value(text, ...details) {
  const small = details.filter(Boolean).flatMap((detail) => [" ", el("small", {}, detail)]);
  return el("span", {}, el("strong", {}, text), ...small);
}

function settings() {
  const flat = runs.map((run) => new Map(flatten(run.config)));
  const names = [...new Set(flat.flatMap((config) => [...config.keys()]))];
  if (!names.length) return empty("No config.yaml was found.");
  const rows = names.map((name) => [name, ...flat.map((config) => config.get(name) ?? "–")]);
  const differs = (row) => new Set(row.slice(1)).size > 1;
  return table(
    ["Setting", ...runs.map((run) => run.name)],
    [...rows.filter(differs), ...rows.filter((row) => !differs(row))],
    { "aria-label": "Settings" },
  );
}

/** The leaves of nested settings as [dotted name, text]. */
function flatten(config, prefix = "") {
  return Object.entries(config).flatMap(([key, item]) =>
    item !== null && typeof item === "object" && !Array.isArray(item)
      ? flatten(item, `${prefix}${key}.`)
      : [[prefix + key, typeof item === "string" ? item : JSON.stringify(item)]],
  );
}
