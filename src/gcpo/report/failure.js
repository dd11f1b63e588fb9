// A prompt with a wrong response: right answers, and what was said.

function measures() {
  return [
    { name: "share right", of: (group) => group.rate },
    { name: "length of the first response", of: (group) => group.completions[0]?.length ?? null },
    { name: "number", of: (group) => group.index, lowest: "as asked", highest: "last asked" },
  ];
}

function showContents(group) {
  const state = group.wrong ? badge("first response wrong", "dead") : badge("first response right", "live");
  $("group-title").replaceChildren(`Prompt ${num(group.i + 1)} `, state);
  $("prompt").textContent = group.prompt;
  $("answer").textContent = group.answer || "–";
  $("responses").replaceChildren(...group.responses.map(response));
}

function response({ label, text, score, right, read }) {
  const attributes = { class: "scroll", tabindex: "0", dir: "auto", "aria-label": label };
  const facts = [
    el("strong", {}, label),
    el("span", {}, right ? "✓ right" : "✗ wrong"),
    el("span", {}, "score ", el("b", {}, num(score))),
    el("span", {}, "read as ", el("b", {}, read ?? "nothing")),
  ];
  return el("li", {}, el("div", { class: "facts" }, ...facts), el("pre", attributes, text || "(empty)"));
}
