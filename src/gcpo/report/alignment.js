// How close the updates of recipes point to the true gradient.

function showAlignment({ alignment, group_sizes: sizes }) {
  const recipes = Object.keys(alignment);
  const conditions = [...new Set(recipes.flatMap((name) => Object.keys(alignment[name])))];
  const gains = (condition) => recipes.map((name) => alignment[name][condition]?.relative);
  drawGains($("recipes"), recipes, conditions.map((name) => ({ name, estimates: gains(name) })));
  const shapes = Object.keys(sizes);
  const estimates = shapes.map((shape) => sizes[shape].relative);
  drawGains($("group-sizes"), shapes.map(shapeName), [{ name: "", estimates }]);
  $("aligned-table").replaceChildren(recipes.length ? alignmentTable(alignment, sizes) : empty("Not measured."));
}

const shapeName = (shape) => shape.replace(" x ", " × "); // prompts × responses to each

function drawGains(node, names, series) {
  if (!names.length) return undraw(node, "Not measured: there is no whole alignment.json.");
  const across = axis("gain in cosine", { tickformat: ".1~%", rangemode: "tozero" });
  return drawIntervals(node, names, series, across, (value) => `${gain(value)} %`);
}

/** Every cosine and its gain over the reference, a row a recipe or group size and condition. */
function alignmentTable(alignment, sizes) {
  const row = (name, condition, { cosine, relative }) => [
    name,
    condition,
    known(cosine) ? cosine.toFixed(3) : "–",
    estimated(relative, (value) => `${gain(value)} %`),
  ];
  const rows = Object.entries(alignment).flatMap(([name, cells]) =>
    Object.entries(cells).map(([condition, cell]) => row(name, condition, cell)),
  );
  const more = Object.entries(sizes).map(([shape, cell]) => row(`grpo, ${shapeName(shape)}`, "clean", cell));
  return table(["Recipe", "Rewards", "Cosine", "Gain"], [...rows, ...more], { "aria-label": "Alignment in numbers" });
}
