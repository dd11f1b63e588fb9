// Elements and numbers. Text from a run reaches the page only as text nodes, never as markup.

const $ = (id) => document.getElementById(id);

const { runs } = JSON.parse($("data").textContent);

/** An element with attributes; children are elements or text, null ones are left out. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

const empty = (text) => el("p", { class: "empty" }, text);

const swatch = (color) => el("span", { class: "swatch", style: `background: var(--c${color % 8})` });

const badge = (text, kind) => el("span", { class: `status ${kind}` }, text);

/** A table in a box that scrolls sideways by itself, so that the page does not. */
function table(head, rows, attributes = {}) {
  const cells = (tag, row) => row.map((cell, i) => el(i ? tag : "th", i ? {} : { scope: "row" }, cell));
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", ...attributes },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, ...head.map((cell) => el("th", { scope: "col" }, cell)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells("td", row)))),
    ),
  );
}

/** The options of a <select>, from [value, label] pairs. */
function fill(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, label]) => el("option", { value }, label)));
  select.value = chosen;
}

/** A bar from 0 to `share` of its width. */
function bar(share) {
  const width = `${(100 * Math.min(Math.max(share || 0, 0), 1)).toFixed(1)}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, el("span", { style: `width: ${width}` }));
}

/** A bar from the middle to the left or right, for a value between -limit and limit. */
function balance(value, limit) {
  const share = limit > 0 ? Math.min(Math.abs(value || 0) / limit, 1) * 50 : 0;
  const side = value < 0 ? "right" : "left";
  const style = `${side}: 50%; width: ${share.toFixed(1)}%`;
  return el("span", { class: "balance", "aria-hidden": "true" }, el("span", { class: side, style }));
}

/** A number with two or three digits that matter. */
function num(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return minus((value + 0).toLocaleString("en")); // + 0 turns −0 into 0
  if (size >= 1e6 || size < 1e-3) return minus(value.toExponential(1));
  return minus(size < 0.1 ? value.toPrecision(2) : value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2));
}

const minus = (text) => text.replace("-", "−");
const plus = (value, text) => (value > 0 ? `+${text}` : text);
const signed = (value) => plus(value, num(value));
const percent = (value, digits = 1) => (known(value) ? `${minus((100 * value).toFixed(digits))} %` : "–");
const points = (value) => minus((100 * value).toFixed(1)); // per cent without the sign
const gain = (value) => plus(value, points(value));
const two = (value) => (known(value) ? minus(value.toFixed(2)) : "–");
const plain = (name) => name.replaceAll("_", " ");

function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
