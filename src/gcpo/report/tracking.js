// Signals by targets: how well each tracks each, sorted by one of them; and the points behind a number.

const sorting = { by: null }; // a target's name

const spoken = (name) => plain(name).replace("/", ", "); // a target's kind and its responses

function startTracking() {
  const { tracking, signals, targets } = viewed();
  const cells = Object.values(tracking).flatMap((row) => Object.values(row));
  const kinds = [...new Set(cells.flatMap((cell) => Object.keys(cell)))];
  fill($("tracked"), kinds.map((kind) => [kind, kindName(kind)]), kinds[0] ?? "");
  sorting.by = targets.find((name) => name.endsWith("/fresh")) ?? targets[0];
  fill($("scatter-x"), signals.map((name) => [name, plain(name)]), signals[0]);
  fill($("scatter-y"), targets.map((name) => [name, spoken(name)]), targets[0]);
  $("tracked").addEventListener("input", showTracking);
  for (const id of ["scatter-x", "scatter-y", "scatter-state", "scatter-scale"]) {
    $(id).addEventListener("input", () => showPair($("scatter-x").value, $("scatter-y").value));
  }
  showTracking();
  showPair(order(signals)[0], sorting.by);
}

function kindName(kind) {
  const names = { spearman: "Spearman ρ", kendall: "Kendall τ" };
  return Object.hasOwn(names, kind) ? names[kind] : plain(kind).replace(/^minus /, "difference of ρ to ");
}

const cellOf = (signal, target) => viewed().tracking[signal]?.[target]?.[$("tracked").value];

/** Signals with the best by the chosen target first, unknown ones last. */
function order(signals) {
  const key = (signal) => cellOf(signal, sorting.by)?.value ?? -Infinity;
  return [...signals].sort((a, b) => (key(a) === key(b) ? 0 : key(b) - key(a)));
}

function showTracking() {
  const { tracking, targets } = viewed();
  const signals = order(Object.keys(tracking));
  if (!signals.length) return $("tracking-table").replaceChildren(empty("There is no whole tracking.json."));
  const box = table(
    ["Signal", ...targets.map(sortButton)],
    signals.map((signal) => [plain(signal), ...targets.map((target) => cellButton(signal, target))]),
    { class: "scroll matrix wide", "aria-label": "Signals by targets" },
  );
  const heads = box.querySelectorAll("thead th");
  targets.forEach((target, i) => {
    if (target === sorting.by) heads[i + 1].setAttribute("aria-sort", "descending");
  });
  return $("tracking-table").replaceChildren(box);
}

function sortButton(target) {
  const button = el("button", { type: "button", "data-target": target }, spoken(target));
  button.addEventListener("click", () => {
    sorting.by = target;
    showTracking();
    [...document.querySelectorAll("[data-target]")].find((node) => node.dataset.target === target).focus();
  });
  return button;
}

function cellButton(signal, target) {
  const cell = cellOf(signal, target);
  const interval = cell?.ci95 ? el("small", {}, cell.ci95.map(two).join(" to ")) : null;
  const button = heatButton(cell?.value, two(cell?.value), " ", interval);
  button.addEventListener("click", () => {
    showPair(signal, target);
    $("against").scrollIntoView();
    $("scatter-x").focus({ preventScroll: true });
  });
  return button;
}

/** Show the points of a signal and a target. */
function showPair(signal, target) {
  const run = viewed();
  [$("scatter-x").value, $("scatter-y").value] = [signal, target];
  const state = $("scatter-state").value;
  const groups = run.groups.filter((group) => state === "all" || group.dead === (state === "dead"));
  const of = (kind, key) => measures(run).find((measure) => measure.kind === kind && measure.key === key);
  const [x, y] = [of("signals", signal), of("targets", target)];
  if (!x || !y) return undraw($("scatter"), "No prompt was recorded.");
  const log = $("scatter-scale").value === "log";
  const upwards = { exponentformat: "power", ...(log ? { type: "log" } : {}) };
  return showScatter(groups, x, y, { upwards, remark: remark(groups, state, log, y, run.tracking[signal]?.[target]) });
}

/** What the number of a scatter plot leaves open: its interval, and the points that the axis cannot show. */
function remark(groups, state, log, y, cell) {
  const interval = state === "all" && cell?.spearman?.ci95;
  const hidden = groups.filter((group) => known(y.of(group)) && y.of(group) <= 0).length;
  return [
    interval ? `, 95 % interval ${interval.map(two).join(" to ")}` : "",
    log && hidden ? `; ${num(hidden)} of them at 0, which this axis cannot show` : "",
  ].join("");
}
