// Intervals of effects and of observed over product, and the products at other drops.
const SETTLED = 0.05;

function forest(box, width, rows, how) {
  const wide = Math.max(...rows.map((row) => row.name.length)) * 7.4 + 16;
  const left = Math.min(wide, width * 0.42), right = width - (width > 520 ? 150 : 16), line = 25, top = 26, bottom = top + rows.length * line;
  const view = draw("svg", { class: "figure", viewBox: `0 0 ${width} ${bottom + 44}`, width, height: bottom + 44, role: "img", "aria-label": how.label });
  const ends = rows.flatMap((row) => [row.low, row.high, row.value]).filter((value) => value !== null && Number.isFinite(value));
  const x = (how.log ? logarithmic : linear)([...ends, how.zero], left, right, how.log ? 1.1 : 5);
  let last = -Infinity;
  for (const mark of x.marks) {
    view.append(draw("path", { class: "grid", d: `M${x.at(mark).toFixed(1)},${top - 6}V${bottom}` }));
    const name = short(mark).replace("-", MINUS), half = 4 * name.length;
    if (x.at(mark) - half < last + 6) continue;
    view.append(text(x.at(mark), bottom + 16, name, "tick mid"));
    last = x.at(mark) + half;
  }
  view.append(draw("path", { class: "zero", d: `M${x.at(how.zero).toFixed(1)},${top - 10}V${bottom}` }), text(width > 520 ? (left + right) / 2 : width / 2, bottom + 36, how.axis, "tick mid"));
  rows.forEach((row, i) => {
    const y = top + (i + 0.5) * line, keep = Math.max(8, Math.floor((left - 16) / 7));
    const name = row.name.length > keep ? `${row.name.slice(0, keep - 1)}\u2026` : row.name;
    view.append(text(left - 12, y + 4, name, "tick end label"));
    if (row.value === null) {
      view.append(draw("rect", { class: "behind", x: left + 1, y: y - 9, width: 7 * row.note.length, height: 18 }), text(left + 6, y + 4, row.note, "tick"));
      return;
    }
    const low = x.at(Math.max(row.low ?? x.low, x.low)), high = x.at(Math.min(row.high ?? x.high, x.high));
    if (row.sure) view.append(draw("path", { class: "interval", d: `M${low.toFixed(1)},${y}H${high.toFixed(1)}` }));
    view.append(draw("circle", { class: row.settled ? "dot settled" : "dot", cx: x.at(row.value).toFixed(1), cy: y, r: 5 }, draw("title", {}, row.note)));
    if (width > 520) view.append(text(right + 10, y + 4, row.note, "tick"));
  });
  box.replaceChildren(view);
}

function effectRows() {
  const [by, where] = (byId("effects-of")?.value ?? "all\t").split("\t");
  return data.effects.filter((row) => row.by === by && row.where === where);
}

const paintEffects = responsive("effects", (box, width) => {
  const rows = effectRows().map((row) => ({ name: row.name, value: 100 * row.mean, low: 100 * row.low, high: 100 * row.high, sure: true,
    settled: row.p < SETTLED, note: `${points(row.mean)} (${points(row.low)} to ${points(row.high)})` }));
  if (rows.length) forest(box, width, rows, { zero: 0, log: false, axis: "points of score", label: `Effects on the score with intervals: ${rows.map((row) => `${row.name} ${row.note}`).join("; ")}` });
});
byId("effects-of")?.addEventListener("input", paintEffects);

function productRows() {
  const bytes = document.querySelector("input[name=product-size]:checked").value;
  return data.products.filter((row) => row.size === bytes).sort((a, b) => a.methods.length - b.methods.length);
}

const shortSet = (methods) => methods.map((name) => ({ quantization: "Q", distillation: "KD", pruning: "P" })[name] ?? name).join("+");

const endsText = (low, high, sure) => !sure ? "" : ` (${low?.toFixed(2) ?? "0"} to ${high?.toFixed(2) ?? "any"})`;

const paintProducts = responsive("products", (box, width) => {
  const rows = productRows().map((row) => {
    const net = row.estimator === "interpolated", value = net ? row.net_ratio : row.ratio;
    const [low, high] = net ? [row.net_low, row.net_high] : [row.low, row.high];
    return { name: `${shortSet(row.methods)}, ${net ? "interpolated" : "discrete"}`, value, low, high, sure: row.covers !== "", settled: ["super", "sub"].includes(row.verdict),
      note: value === null ? "only bounds: no pair has all its factors" : `${value.toFixed(2)}${endsText(low, high, row.covers)}` };
  });
  forest(box, width, rows, { zero: 1, log: true, axis: width > 520 ? "observed over product (log); right of 1: more than the product" : "observed over product (log)", label: `Observed over product: ${rows.map((row) => `${row.name} ${row.note}`).join("; ")}` });
});

const paintDrops = responsive("drops", (box, width) => {
  const bytes = document.querySelector("input[name=product-size]:checked").value;
  const known = data.byDrop.filter((row) => row.size === bytes && row.estimator === "interpolated" && row.net_ratio);
  if (!known.length) {
    box.replaceChildren(make("p", { class: "note" }, "At no drop has a pair of model and task all its factors."));
    return;
  }
  const left = 46, right = width - 16, top = 40, bottom = 236;
  const view = draw("svg", { class: "figure", viewBox: `0 0 ${width} 282`, width, height: 282, role: "img", "aria-label": "Net ratio of the interpolated estimator at several drops; the table below holds the numbers" });
  const sets = [...new Set(known.map((row) => row.methods.join("+")))], drops = [...new Set(data.byDrop.map((row) => row.drop))].sort((a, b) => a - b);
  // One column a drop, and in it the sets beside each other. The largest ends leave the chart.
  const column = (right - left) / drops.length, step = Math.min(14, (0.8 * column) / sets.length);
  const middle = (drop) => left + (drops.indexOf(drop) + 0.5) * column;
  const most = 3 * Math.max(...known.map((row) => Math.abs(Math.log(row.net_ratio))), 0.1), near = (value) => Math.exp(Math.min(Math.max(Math.log(value), -most), most));
  const y = logarithmic([...known.flatMap((row) => [row.net_ratio, near(row.net_low ?? row.net_ratio), near(row.net_high ?? row.net_ratio)]), 1], bottom, top);
  const inside = (value) => Math.min(Math.max(y.at(value), top), bottom).toFixed(1);
  for (const mark of y.marks) view.append(draw("path", { class: "grid", d: `M${left},${y.at(mark).toFixed(1)}H${right}` }), text(left - 6, y.at(mark) + 4, short(mark), "tick end"));
  for (const drop of drops) view.append(text(middle(drop), bottom + 17, short(100 * drop), "tick mid"));
  view.append(draw("path", { class: "zero", d: `M${left},${y.at(1).toFixed(1)}H${right}` }), text((left + right) / 2, bottom + 38, "drop in points", "tick mid"));
  let key = left + 6;
  sets.forEach((set, i) => {
    const own = known.filter((row) => row.methods.join("+") === set), name = shortSet(own[0].methods), shape = SHAPES[i % SHAPES.length];
    const color = data.sets.find((one) => one.name === name)?.color ?? i + 1;
    view.append(draw("path", { d: shape, class: `mark c${color}`, transform: `translate(${key},14)` }), text(key + 10, 18, name, "tick"));
    key += 34 + 7 * name.length;
    for (const row of own) {
      const at = (middle(row.drop) + step * (i - (sets.length - 1) / 2)).toFixed(1);
      if (row.covers) view.append(draw("path", { class: `line c${color}`,
        d: `M${at},${row.net_low === null ? bottom : inside(row.net_low)}V${row.net_high === null ? top : inside(row.net_high)}` }));
      view.append(draw("path", { d: shape, class: `mark c${color}`, transform: `translate(${at},${y.at(row.net_ratio).toFixed(1)})` },
        draw("title", {}, `${name} at a drop of ${short(100 * row.drop)} points: ${row.net_ratio.toFixed(2)}${endsText(row.net_low, row.net_high, row.covers)}, ${row.num_values} pairs`)));
    }
  });
  box.replaceChildren(view);
});
document.querySelectorAll("input[name=product-size]").forEach((input) => input.addEventListener("input", () => {
  paintProducts();
  paintDrops();
}));
paintEffects();
if (byId("products")) {
  paintProducts();
  paintDrops();
}
