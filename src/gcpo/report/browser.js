// One recorded group at a time, of those that pass the filter. What a group holds is the page's: measures(run), the
// last of which says when it was taken, describe(group) and showContents(group).

const view = { run: 0, matches: [], at: 0 }; // matches: indices into the run's groups, in the chosen order

const viewed = () => runs[view.run];

/** What a page may offer to show, by the value of its choice. */
const STATES = {
  all: () => true,
  live: (group) => !group.dead,
  dead: (group) => group.dead,
  wrong: (group) => group.wrong,
  mixed: (group) => group.rate > 0 && group.rate < 1,
  never: (group) => group.rate === 0,
  lost: (group) => group.lost,
};

const filters = () => ["state", "order", "at-step", "search"].map($).filter(Boolean);

/** Listen to the controls; those of browser.html that tell no groups of this page apart are hidden. */
function startBrowser() {
  for (const label of document.querySelectorAll("[data-run-choice]")) label.hidden = runs.length === 1;
  $("at-step")?.parentElement.toggleAttribute("hidden", !runs.some(({ groups }) => groups.some(({ step }) => known(step))));
  for (const node of filters()) node.addEventListener("input", findGroups);
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
  const orders = list.flatMap(({ name, lowest = `lowest ${name}`, highest = `highest ${name}` }, i) => [
    [`-${i}`, highest],
    [`+${i}`, lowest],
  ]);
  const [latest, earliest] = orders.splice(-2);
  fill($("order"), [earliest, latest, ...orders], earliest[0]);
  clearFilter();
  findGroups();
}

function clearFilter() {
  for (const node of filters()) if (node.id !== "order") node.value = node.id === "state" ? "all" : "";
}

function findGroups() {
  const { groups } = viewed();
  const [state, step, words] = [$("state").value, $("at-step")?.value ?? "", $("search").value.toLowerCase()];
  const passes = (group) =>
    STATES[state](group) &&
    (step === "" || group.step === Number(step)) &&
    texts(group).some((text) => text.toLowerCase().includes(words));
  view.matches = groups.map((_, i) => i).filter((i) => passes(groups[i]));
  view.matches.sort(comparison($("order").value));
  view.at = 0;
  showGroup();
}

const texts = ({ prompt, answer = "", completions = [] }) => [prompt, answer, ...completions];

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

/** A measure of this group with its rank in the run; the bar is `share(value, all, below)` of its width. */
function measureRow({ name, of }, group, share) {
  const all = viewed().groups.map(of).filter(known);
  const value = of(group);
  const below = all.filter((other) => other < value).length / all.length;
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, name),
    el("td", { class: "number" }, num(value)),
    el("td", { class: "wide" }, bar(share(value, all, below))),
    el("td", { class: "rank" }, known(value) ? `above ${percent(below, 0)}` : ""),
  );
}

/** The reward from which a response counts as right: halfway between the run's lowest and highest. */
function threshold() {
  const rewards = viewed().groups.flatMap((group) => group.rewards).filter(known);
  const [low, high] = [-largest(rewards.map((reward) => -reward)), largest(rewards)];
  return low < high ? (low + high) / 2 : Number.MIN_VALUE;
}

const isRight = (reward) => known(reward) && reward >= view.threshold;
