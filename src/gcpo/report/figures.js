// How often the model is right, and which of two is right more often.

function facts({ config, summary, asked, failed }) {
  return [
    ["Task", config.data ?? config.task],
    ["Model", config.model],
    ["Against", config.against],
    ["Prompts", [asked, summary.n].filter(known).map(num).filter((n, i, all) => i === 0 || n !== all[0]).join(" of ")],
    ["With a wrong response", num(failed)],
    ["Samples", num(summary.samples)],
    ["Seed", config.seed],
  ].filter(([, value]) => value !== null && value !== undefined);
}

const share = (estimate) => {
  if (!known(estimate?.value)) return "–";
  const { ci95 } = estimate;
  return value(percent(estimate.value), ci95 && `${points(ci95[0])} to ${percent(ci95[1])}`);
};

function showFigures({ figures, against, comparison }) {
  const names = Object.keys(figures);
  if (!names.length) return undraw($("figures"), "No figure was computed yet.");
  const models = [["model", figures], ...(against ? [["other model", against]] : [])];
  const series = models.map(([name, found]) => ({ name, estimates: names.map((figure) => found[figure]) }));
  const across = axis("", { tickformat: ".0%", range: [-0.02, 1.02] });
  drawIntervals($("figures"), names.map(plain), series, across, (x) => percent(x));
  $("figure-table").replaceChildren(
    table(
      ["Figure", ...models.map(([name]) => name)],
      names.map((name) => [plain(name), ...models.map(([, found]) => share(found[name]))]),
      { "aria-label": "Figures" },
    ),
  );
  return showComparison(Object.entries(comparison).filter(([name]) => name in figures));
}

function showComparison(tests) {
  $("comparison").hidden = !tests.length;
  const difference = ({ value: by, ci95 }) => value(gain(by), ci95 && `${gain(ci95[0])} to ${gain(ci95[1])}`);
  $("comparison-table").replaceChildren(
    table(
      ["Figure", "Difference, in points", "Better on", "Other better on", "p", "Test"],
      tests.map(([name, { difference: by, first, second, p, test }]) => [
        plain(name),
        known(by.value) ? difference(by) : "–",
        num(first),
        num(second),
        num(p),
        test,
      ]),
      { "aria-label": "Comparison of the two models" },
    ),
  );
}
