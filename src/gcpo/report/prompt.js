// What the probe recorded of a prompt: its rewards, signals and targets.

/** What can be measured of a prompt, as for a group of a training run. */
function measures(run) {
  const named = (kind, label) =>
    run[kind].map((key) => ({ kind, key, name: label(key), of: (group) => group[kind][key] ?? null }));
  return [
    ...named("signals", plain),
    ...named("targets", spoken),
    { name: "mean reward", of: (group) => mean(group.rewards) },
    { name: "number", of: (group) => group.index, lowest: "as drawn", highest: "last drawn" },
  ];
}

const stateOf = (group) => (group.dead ? "dead" : "live");

function describe(group) {
  const head = `prompt ${num(group.index + 1)}, ${stateOf(group)}`;
  return `${head}<br>mean reward ${num(mean(group.rewards))}<br>${excerpt(group.prompt, 120)}`;
}

function showContents(group) {
  $("group-title").replaceChildren(`Prompt ${num(group.index + 1)} `, badge(stateOf(group), stateOf(group)));
  $("prompt").textContent = group.prompt;
  $("rewards").replaceChildren(
    ...chips("Rewards of the group, which the signals saw", group.rewards.slice(0, group.seen)),
    ...chips("Rewards of fresh responses", group.rewards.slice(group.seen)),
  );
  const list = measures(viewed());
  const rank = (_value, _all, below) => below;
  for (const kind of ["signals", "targets"]) {
    $(kind).replaceChildren(
      ...list.filter((measure) => measure.kind === kind).map((measure) => measureRow(measure, group, rank)),
    );
  }
}

function chips(title, rewards) {
  if (!rewards.length) return [];
  const right = rewards.filter(isRight).length;
  const chip = (reward) => el("li", { class: isRight(reward) ? "right" : "wrong" }, num(reward));
  return [
    el("h4", {}, `${title}: ${num(right)} of ${num(rewards.length)} right`),
    el("ul", { class: "chips" }, ...rewards.map(chip)),
  ];
}
