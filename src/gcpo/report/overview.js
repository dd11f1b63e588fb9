// What was run, how it ended, and with which settings. What of a run goes into its card is the page's: facts(run).

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
  $("settings").replaceChildren(settings());
}

function runCard(run, index) {
  const status = STATUS[run.summary.status] ? run.summary.status : "unknown";
  return el(
    "article",
    { class: "run" },
    el("h2", {}, runs.length > 1 ? swatch(index) : null, run.name, badge(STATUS[status], status)),
    el("dl", {}, ...facts(run).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, short(value))))),
    ...run.notes.map((note) => el("p", { class: "note" }, note)),
  );
}

/** A setting in a few words: the name or path of a nested one. */
function short(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "object") return String(value);
  return short(value.name ?? value.path ?? JSON.stringify(value));
}

/** A number and, smaller, what qualifies it. */
function value(text, ...details) {
  const small = details.filter(Boolean).flatMap((detail) => [" ", el("small", {}, detail)]);
  return el("span", {}, el("strong", {}, text), ...small);
}

/** An estimate and, smaller, its interval. */
function estimated(estimate, text) {
  if (!known(estimate?.value)) return "–";
  return value(text(estimate.value), estimate.ci95?.map(text).join(" to "));
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
