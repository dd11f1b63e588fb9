// What was probed, and what the recipe's signal knows more than others, in words.

const GAPS = {
  anisotropic_gap: {
    title: "Anisotropic gap: does geometry know more than entropy?",
    hint: (signal) => `Correlation of ${signal} with the score variance, less that of semantic entropy.`,
    more: (signal) => `yes, ${signal} tracks the variance better than semantic entropy.`,
    less: (signal) => `no, ${signal} tracks the variance worse than semantic entropy.`,
  },
  calibration_gap: {
    title: "Calibration gap: do rewards add what the signal lacks?",
    hint: (signal) => `Correlation of ${signal} × reward dispersion with the weighted variance, less ${signal}'s own.`,
    more: (signal) => `yes, with rewards ${signal} tracks the variance better.`,
    less: (signal) => `no, with rewards ${signal} tracks the variance worse.`,
  },
};

function facts({ config, summary, groups }) {
  const { group_size: size, responses } = config;
  return [
    ["Model", config.model],
    ["Task", config.data ?? config.task],
    ["Recipe probed", config.recipe],
    ["Prompts", num(summary.prompts ?? (groups.length || config.groups))],
    ["Group", known(size) && known(responses) ? `${num(size)} of ${num(responses)} responses` : null],
    ["Gradients", "exact" in config ? (config.exact ? "exact" : "sketched") : null],
    ["Right responses", percent(summary.accuracy)],
    ["Dead groups", percent(summary.dead)],
    ["Seed", config.seed],
  ];
}

/** A gap's words, by its name; one without words of its own is shown with its name. */
function wordsOf(name) {
  const said = plain(name);
  const bare = { title: said, hint: (signal) => `Of ${signal}.`, more: () => "above 0.", less: () => "below 0." };
  return Object.hasOwn(GAPS, name) ? GAPS[name] : bare;
}

function showGaps({ gaps }) {
  const names = Object.keys(gaps);
  $("gaps").replaceChildren(
    ...names.map((name) => gapFigure(wordsOf(name), gaps[name])),
    names.length ? "" : empty("No gap was measured: there is no whole tracking.json."),
  );
  names.forEach((name, i) => drawGap($("gaps").children[i].querySelector(".plot"), gaps[name]));
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const samplesOf = (gap) => Object.keys(gap).filter((name) => name !== "signal");

function gapFigure(words, gap) {
  const signal = plain(gap.signal);
  const spread = gap.fresh?.spread_at_equal_entropy;
  return el(
    "figure",
    {},
    el("h3", {}, words.title),
    ...samplesOf(gap).map((sample) => {
      const said = verdict(gap[sample].difference, words, signal);
      return el("p", { class: "verdict" }, el("strong", {}, `${capital(sample)} responses: `), said);
    }),
    el("p", { class: "caption" }, words.hint(signal)),
    el("div", { class: "plot small" }),
    gapTable(gap, words.title),
    known(spread?.value) ? el("p", { class: "caption" }, spreadInWords(spread)) : null,
  );
}

function spreadInWords({ value: factor, ci95 }) {
  const interval = ci95 ? ` (${ci95.map(num).join(" to ")})` : "";
  const said = `At equal semantic entropy, fresh score variances typically differ by a factor of ${num(factor)}${interval}`;
  return `${said}; 1 would mean that entropy decides them.`;
}

function verdict(difference, words, signal) {
  if (!known(difference?.value)) return "not defined, as a signal or the variance is the same for all prompts.";
  if (!difference.ci95) return "not decided, there is no interval.";
  const [low, high] = difference.ci95;
  if (low > 0) return words.more(signal);
  return high < 0 ? words.less(signal) : "not decided, the interval contains 0: the difference may be noise.";
}

/** Samples by what was measured of them. */
function gapTable(gap, title) {
  const samples = samplesOf(gap);
  const kinds = [...new Set(samples.flatMap((sample) => Object.keys(gap[sample])))];
  const cell = (sample, kind) => estimated(gap[sample][kind], kind === "difference" ? signed : num);
  return table(
    ["Responses", ...kinds.map((kind) => capital(plain(kind)))],
    samples.map((sample) => [capital(sample), ...kinds.map((kind) => cell(sample, kind))]),
    { "aria-label": `${title} In numbers` },
  );
}

function drawGap(node, gap) {
  const samples = samplesOf(gap);
  const names = samples.map((sample) => `${capital(sample)} responses`);
  const estimates = samples.map((sample) => gap[sample].difference);
  drawIntervals(node, names, [{ name: "", estimates }], axis("difference of correlations"), signed);
}
