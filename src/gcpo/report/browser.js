// One recorded group at a time, of those that pass the filter.

const view = { run: 0, matches: [], at: 0 }; // matches: indices into the run's groups, in the chosen order

const viewed = () => runs[view.run];

/** What can be measured of a group: the axes of the scatter plot and the orders of the browser. */
function measures(run) {
  return [
    ...run.signals.map((name) => ({ name: plain(name), of: (group) => group.signals[name] ?? null })),
    { name: "weight", of: (group) => group.weight },
    { name: "mean reward", of: (group) => mean(group.rewards) },
    { name: "step", of: (group) => group.step },
  ];
}

function startBrowser() {
  for (const id of ["state", "order", "at-step", "search"]) $(id).addEventListener("input", findGroups);
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  document.addEventListener("keydown", ({ key, target, ctrlKey, altKey, metaKey, shiftKey }) => {
    const typing = target.closest("input, select, .scroll") || ctrlKey || altKey || metaKey || shiftKey;
    if (!typing && (key === "ArrowLeft" || key === "ArrowRight")) turn(key === "ArrowLeft" ? -1 : 1);
  });
}

/** Offer the orders of the chosen run and show its first group. */
function resetBrowser() {
  const list = measures(viewed());
  const orders = list.flatMap(({ name }, i) => [[`-${i}`, `highest ${name}`], [`+${i}`, `lowest ${name}`]]);
  const [latest, earliest] = orders.splice(-2);
  fill($("order"), [[earliest[0], "earliest step"], [latest[0], "latest step"], ...orders], earliest[0]);
  clearFilter();
  findGroups();
}

function clearFilter() {
  $("state").value = "all";
  $("at-step").value = "";
  $("search").value = "";
}

function findGroups() {
  const { groups } = viewed();
  const [state, step, words] = [$("state").value, $("at-step").value, $("search").value.toLowerCase()];
  const passes = (group) =>
    (state === "all" || group.dead === (state === "dead")) &&
    (step === "" || group.step === Number(step)) &&
    [group.prompt, group.answer, ...group.completions].some((text) => text.toLowerCase().includes(words));
  view.matches = groups.map((_, i) => i).filter((i) => passes(groups[i]));
  view.matches.sort(comparison($("order").value));
  view.at = 0;
  showGroup();
}

/** Order of group indices by a measure; unknown values come last. */
function comparison(order) {
  const { of } = measures(viewed())[Number(order.slice(1))];
  const sign = order[0] === "+" ? 1 : -1;
  const { groups } = viewed();
  const key = (i) => sign * (of(groups[i]) ?? sign * Infinity);
  return (a, b) => (key(a) === key(b) ? a - b : key(a) - key(b));
}

function turn(by) {
  const at = view.at + by;
  if (at < 0 || at >= view.matches.length) return;
  view.at = at;
  showGroup();
}

/** Show the group with this index, whatever the filter says, and go there. */
function openGroup(index) {
  if (!view.matches.includes(index)) {
    clearFilter();
    findGroups();
  }
  view.at = view.matches.indexOf(index);
  showGroup();
  $("browser").scrollIntoView();
  $("group-title").focus({ preventScroll: true });
}

function showGroup() {
  const group = viewed().groups[view.matches[view.at]];
  const { length } = view.matches;
  $("position").textContent = length ? `${num(view.at + 1)} of ${num(length)}` : "";
  $("previous").disabled = view.at === 0;
  $("next").disabled = view.at + 1 >= length;
  $("group").hidden = !group;
  $("no-group").hidden = Boolean(group);
  $("no-group").textContent = viewed().groups.length ? "No group passes the filter." : "No group was recorded.";
  if (group) showContents(group);
}

function showContents(group) {
  const state = group.dead ? "dead" : "live";
  $("group-title").replaceChildren(
    `Step ${num(group.step)}, group ${num(group.group)} `,
    badge(state, state),
  );
  $("prompt").textContent = group.prompt;
  $("answer").textContent = group.answer || "–";
  $("measures").replaceChildren(...measures(viewed()).slice(0, -1).map((measure) => measureRow(measure, group)));
  $("responses").replaceChildren(...responses(group));
  showMap(group);
}

/** A measure of this group on the scale of the run: full is the largest value recorded. */
function measureRow({ name, of }, group) {
  const all = viewed().groups.map(of).filter(known);
  const [value, most] = [of(group), largest(all)];
  const below = all.filter((other) => other < value).length / all.length;
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, name),
    el("td", { class: "number" }, num(value)),
    el("td", { class: "wide" }, bar(value / most)),
    el("td", { class: "rank" }, known(value) ? `above ${percent(below, 0)}` : ""),
  );
}

function responses(group) {
  const limit = largest(group.advantages.map((advantage) => (known(advantage) ? Math.abs(advantage) : null)));
  const clusters = clusterNumbers(group);
  return group.completions.map((text, i) => {
    const attributes = { class: "scroll", tabindex: "0", dir: "auto", "aria-label": `Response ${i + 1}` };
    const facts = el("div", { class: "facts" }, ...responseFacts(group, i, clusters[i], limit));
    return el("li", { id: `response-${i}`, tabindex: "-1" }, facts, el("pre", attributes, text || "(empty)"));
  });
}

function responseFacts(group, i, cluster, limit) {
  const [reward, advantage] = [group.rewards[i], group.advantages[i]];
  const verdict = isRight(reward) ? "✓ right" : "✗ wrong";
  return [
    el("strong", {}, `#${i + 1}`),
    el("span", {}, known(reward) ? verdict : "not graded"),
    cluster === null ? null : el("span", {}, swatch(cluster), `meaning ${cluster + 1}`),
    el("span", {}, "reward ", el("b", {}, num(reward))),
    el("span", {}, "advantage ", el("b", {}, signed(advantage)), balance(advantage, limit)),
  ].filter(Boolean);
}

/** The meaning cluster of each response, numbered from 0 in order of appearance. */
function clusterNumbers({ labels }) {
  const seen = [...new Set(labels.filter(known))];
  return labels.map((label) => (known(label) ? seen.indexOf(label) : null));
}

/** The reward from which a response counts as right: halfway between the run's lowest and highest. */
function threshold() {
  const rewards = viewed().groups.flatMap((group) => group.rewards).filter(known);
  const [low, high] = [-largest(rewards.map((reward) => -reward)), largest(rewards)];
  return low < high ? (low + high) / 2 : Number.MIN_VALUE;
}

const isRight = (reward) => known(reward) && reward >= view.threshold;

function showMap(group) {
  const places = group.map.map((point, i) => [...point, i]).filter(([x, y]) => known(x) && known(y));
  if (!places.length) return undraw($("map"), "No map was recorded for this group.");
  const clusters = clusterNumbers(group);
  const together = places.every(([x, y]) => x === places[0][0] && y === places[0][1]);
  $("map-note").textContent = together ? "Here all of them are at one place." : "";
  const make = () => ({ data: [mapPoints(group, fanned(places), clusters)], layout: mapLayout() });
  return draw($("map"), make, (response) => $(`response-${response}`).focus());
}

function mapPoints(group, places, clusters) {
  const each = (of) => places.map(([, , i]) => of(i));
  return {
    type: "scatter",
    mode: "markers+text",
    x: places.map(([x]) => x),
    y: places.map(([, y]) => y),
    customdata: each((i) => i),
    text: each((i) => String(i + 1)),
    textposition: "top center",
    marker: {
      size: 11,
      color: each((i) => (clusters[i] === null ? color("muted") : seriesColor(clusters[i]))),
      symbol: each((i) => (isRight(group.rewards[i]) ? "circle" : "x")),
    },
    hovertext: each((i) => `#${i + 1}, reward ${num(group.rewards[i])}<br>${excerpt(group.completions[i])}`),
    hoverinfo: "text",
    cliponaxis: false,
  };
}

function mapLayout() {
  const bare = { showticklabels: false, nticks: 5 };
  return {
    margin: { l: 8, r: 8, t: 20, b: 8 },
    xaxis: axis("", bare),
    yaxis: axis("", { ...bare, scaleanchor: "x" }),
    hovermode: "closest",
  };
}

/** Points that fall on one another, moved apart onto a small circle. */
function fanned(places) {
  const spread = (k) => largest(places.map((p) => p[k])) + largest(places.map((p) => -p[k]));
  const extent = Math.max(spread(0), spread(1)) || 1;
  const spot = ([x, y]) => `${Math.round((50 * x) / extent)} ${Math.round((50 * y) / extent)}`;
  const spots = Map.groupBy(places, spot);
  return [...spots.values()].flatMap((together) =>
    together.map(([x, y, i], k) => {
      const angle = (2 * Math.PI * k) / together.length;
      const radius = together.length > 1 ? 0.04 * extent : 0;
      return [x + radius * Math.cos(angle), y + radius * Math.sin(angle), i];
    }),
  );
}
