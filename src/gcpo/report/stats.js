"use strict";
// Statistics over lists in which null stands for "not known".

const known = (value) => typeof value === "number";

function mean(values) {
  const numbers = values.filter(known);
  return numbers.length ? numbers.reduce((sum, value) => sum + value, 0) / numbers.length : null;
}

function median(values) {
  const sorted = values.filter(known).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (!sorted.length) return null;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function largest(values) {
  return values.reduce((most, value) => (known(value) && (most === null || value > most) ? value : most), null);
}

/** Mean of the last `width` values at every place. */
function smooth(values, width) {
  return values.map((_, end) => mean(values.slice(Math.max(0, end + 1 - width), end + 1)));
}

/** Ranks from 1; equal values share the mean of theirs. */
function ranks(values) {
  const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
  const result = new Array(values.length);
  for (let start = 0, end = 0; start < order.length; start = end) {
    while (end < order.length && values[order[end]] === values[order[start]]) end += 1;
    for (let i = start; i < end; i += 1) result[order[i]] = (start + end + 1) / 2;
  }
  return result;
}

function pearson(xs, ys) {
  const [mx, my] = [mean(xs), mean(ys)];
  let [xy, xx, yy] = [0, 0, 0];
  xs.forEach((x, i) => {
    xy += (x - mx) * (ys[i] - my);
    xx += (x - mx) ** 2;
    yy += (ys[i] - my) ** 2;
  });
  return xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : null;
}

/** Spearman's rank correlation where both are known; null for fewer than three pairs or a constant. */
function spearman(xs, ys) {
  const pairs = xs.map((x, i) => [x, ys[i]]).filter(([x, y]) => known(x) && known(y));
  if (pairs.length < 3) return null;
  return pearson(ranks(pairs.map(([x]) => x)), ranks(pairs.map(([, y]) => y)));
}

/** The chance that a value of `upper` exceeds one of `lower`, a tie counting half (the area under the ROC curve). */
function separation(upper, lower) {
  const [high, low] = [upper.filter(known), lower.filter(known)];
  if (!high.length || !low.length) return null;
  const sum = ranks(high.concat(low)).slice(0, high.length).reduce((total, rank) => total + rank, 0);
  return (sum - (high.length * (high.length + 1)) / 2) / (high.length * low.length);
}
