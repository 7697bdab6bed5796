// Score against bytes or time: filters, budgets, the winner, and what is known of a chosen model.
const data = JSON.parse(byId("data").textContent);
const SHAPES = JSON.parse(byId("shapes").textContent);
const AXES = {
  weights: "weights file, MB", ideal: "ideal size, MB (bits × weights left)", package: "whole package, MB",
  ms: "latency, ms",
};
const state = { task: data.tasks[0], cost: "weights", log: true, sets: new Set(), models: new Set(), chosen: null, focus: null };
const chart = { shown: [], places: [], winner: null };

const cost = (point) => (state.cost === "ms" ? point.ms : point[state.cost] / 1e6);
const size = (point) => point[state.cost === "ms" ? "weights" : state.cost] / 1e6;
const nameOf = (point) => `${data.models[point.model]}, ${point.label}`;

function visible() {
  return data.points.filter((point) => point.task === state.task && point.score !== null
    && point[state.cost] && !state.sets.has(point.set) && !state.models.has(point.model));
}

function frontier(all) {
  const best = [];
  let score = -Infinity;
  for (const point of [...all].sort((a, b) => cost(a) - cost(b) || b.score - a.score)) {
    if (point.score > score) {
      best.push(point);
      score = point.score;
    }
  }
  return best;
}

// Budgets. A slider stands at its end where nothing is asked for.
const sliders = { mb: { of: size, log: true, unit: "MB", word: "at most" }, ms: { of: (p) => p.ms, log: true, unit: "ms", word: "at most" },
  score: { of: (p) => p.score, log: false, unit: "", word: "at least" } };

function limits(name, all) {
  const values = all.map(sliders[name].of).filter((value) => value !== null && value > 0);
  return values.length ? [Math.min(...values), Math.max(...values)] : null;
}

function budget(name, all) {
  const input = byId(`max-${name}`), ends = input && limits(name, all);
  if (!ends) return null;
  const share = input.value / 1000, [low, high] = ends, { log } = sliders[name];
  const free = name === "score" ? share === 0 : share === 1;
  const value = log ? low * (high / low) ** share : low + (high - low) * share;
  return { value, free };
}

function setBudget(name, value) {
  const ends = limits(name, visible());
  if (!ends) return;
  const [low, high] = ends;
  const share = sliders[name].log ? Math.log(value / low) / Math.log(high / low || 2) : (value - low) / (high - low || 1);
  byId(`max-${name}`).value = Math.round(1000 * Math.min(1, Math.max(0, share)));
}

function fits(point, asked) {
  return (!asked.mb || asked.mb.free || size(point) <= asked.mb.value * 1.0005)
    && (!asked.ms || asked.ms.free || (point.ms !== null && point.ms <= asked.ms.value * 1.0005))
    && (!asked.score || asked.score.free || point.score >= asked.score.value - 5e-6);
}

function winnerOf(all, asked) {
  const able = all.filter((point) => fits(point, asked));
  const wish = document.querySelector("input[name=wish]:checked").value;
  const orders = { score: (a, b) => b.score - a.score || size(a) - size(b), size: (a, b) => size(a) - size(b) || b.score - a.score,
    ms: (a, b) => (a.ms ?? Infinity) - (b.ms ?? Infinity) || b.score - a.score };
  return able.sort(orders[wish])[0] ?? null;
}

function showBudgets(asked, all) {
  for (const [name, { unit, word }] of Object.entries(sliders)) {
    const input = byId(`max-${name}`), one = asked[name];
    if (!input) continue;
    input.disabled = !one;
    const value = one && (name === "score" ? one.value.toFixed(3) : short(one.value));
    const said = !one ? "not measured" : one.free ? "any" : `${word} ${value} ${unit}`.trim();
    byId(`said-${name}`).textContent = said;
    input.setAttribute("aria-valuetext", said);
  }
  byId("fitting").textContent = `${all.filter((point) => fits(point, asked)).length} of ${all.length} fit.`;
}

// The drawing.
function marker(point, kind = "") {
  return draw("path", { d: SHAPES[point.model % SHAPES.length], class: `mark c${data.sets[point.set].color} ${kind}` });
}

function paint(box, width) {
  const all = visible(), asked = Object.fromEntries(Object.keys(sliders).map((name) => [name, budget(name, all)]));
  const height = Math.round(Math.min(620, Math.max(320, width * 0.74)));
  showBudgets(asked, all);
  chart.winner = winnerOf(all, asked);
  chart.shown = [...all].sort((a, b) => cost(a) - cost(b));
  if (!all.includes(state.focus)) state.focus = null;
  const view = draw("svg", { class: "figure", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  if (all.length) paintPoints(view, all, asked, { width, height });
  else view.append(text(20, 40, "Nothing to show: no run of this task and these filters is done.", "head"));
  box.replaceChildren(view);
  const best = frontier(all);
  box.setAttribute("aria-label", `Score against ${AXES[state.cost]} on ${state.task}: ${all.length} points, `
    + `${best.length} on the frontier, from ${best.length ? describe(best[0]) : "none"} to ${best.length ? describe(best.at(-1)) : "none"}. `
    + "Arrow keys move between points, Enter chooses one; the table of all cells has the numbers of every run.");
  showChosen();
}

function paintPoints(view, all, asked, { width, height }) {
  const left = 52, right = width - 16, top = 26, bottom = height - 46;
  const best = frontier(all);
  const scores = all.map((p) => p.score);
  for (const point of best) if (point.ends) scores.push(Math.max(point.ends[0], point.score - 0.06), Math.min(point.ends[1], point.score + 0.06));
  const x = (state.log ? logarithmic : linear)(all.map(cost), left + 8, right - 8), y = linear(scores, bottom, top);
  const digits = y.step >= 0.0099 ? 2 : 3;
  for (const mark of y.marks) {
    view.append(draw("path", { class: "grid", d: `M${left},${y.at(mark).toFixed(1)}H${right}` }),
      text(left - 7, y.at(mark) + 4, mark.toFixed(digits), "tick end"));
  }
  for (const mark of x.marks) {
    view.append(draw("path", { class: "grid", d: `M${x.at(mark).toFixed(1)},${top}V${bottom}` }), text(x.at(mark), bottom + 17, short(mark), "tick mid"));
  }
  view.append(draw("path", { class: "axis", d: `M${left},${top}V${bottom}H${right}` }), text(left - 7, top - 10, "score", "tick end"),
    text((left + right) / 2, bottom + 37, AXES[state.cost] + (state.log ? " (log)" : ""), "tick mid"));
  const limit = state.cost === "ms" ? asked.ms : asked.mb;
  if (limit && !limit.free) view.append(outside(x.at(limit.value), top, right, bottom, true));
  if (asked.score && !asked.score.free) view.append(outside(left, y.at(asked.score.value), right, bottom, false));
  const steps = best.map((p, i) => (i ? `H${x.at(cost(p)).toFixed(1)}V` : `M${x.at(cost(p)).toFixed(1)},`) + y.at(p.score).toFixed(1));
  view.append(draw("path", { class: "frontier", d: `${steps.join("")}H${right}` }));
  chart.places = [];
  const onFrontier = new Set(best);
  for (const point of [...all].sort((a, b) => onFrontier.has(a) - onFrontier.has(b))) {
    const px = x.at(cost(point)), py = y.at(point.score);
    chart.places.push({ point, x: px, y: py });
    const group = draw("g", { transform: `translate(${px.toFixed(1)},${py.toFixed(1)})`, class: onFrontier.has(point) ? "best" : "beaten" });
    if (point.ends && onFrontier.has(point)) {
      const [low, high] = point.ends.map((end) => Math.min(bottom, Math.max(top, y.at(end))) - py);
      group.append(draw("path", { class: `spread c${data.sets[point.set].color}`, d: `M0,${low.toFixed(1)}V${high.toFixed(1)}` }));
    }
    if (point === chart.winner) group.append(draw("circle", { r: 11, class: "winner" }));
    if (point === state.chosen || point === state.focus) group.append(draw("circle", { r: 15, class: "chosen" }));
    group.append(draw("path", { d: SHAPES[point.model % SHAPES.length], class: "paper" }), marker(point));
    view.append(group);
  }
  names(view, best, { left, right, top, bottom, x, y });
}

function outside(a, top, right, bottom, isRight) {
  const line = isRight ? `M${a.toFixed(1)},${top}V${bottom}` : `M${a.toFixed(1)},${top.toFixed(1)}H${right}`;
  const area = isRight ? { x: Math.min(a, right), y: top, width: Math.max(0, right - a), height: bottom - top }
    : { x: a, y: top, width: right - a, height: Math.max(0, bottom - top) };
  return draw("g", {}, draw("rect", { class: "outside", ...area }), draw("path", { class: "limit", d: line }));
}

// Names beside the frontier's points, each where it covers nothing, or left out.
function names(view, best, { left, right, top, bottom, x, y }) {
  const taken = chart.places.map((p) => [p.x - 6, p.y - 6, p.x + 6, p.y + 6]);
  const order = [chart.winner, ...[...best].reverse()].filter((point, i, own) => point && own.indexOf(point) === i);
  for (const point of order) {
    const isWinner = point === chart.winner;
    const label = isWinner ? nameOf(point) : point.label, wide = label.length * (isWinner ? 7.2 : 6.2);
    if (label.length > 44) continue;
    const px = x.at(cost(point)), py = y.at(point.score);
    for (const [dx, dy, anchor] of [[-10, -9, "end"], [0, -15, "mid"], [10, -9, "start"], [13, 4, "start"], [-13, 4, "end"], [10, 17, "start"], [0, 24, "mid"], [-10, 17, "end"]]) {
      const from = px + dx - wide * { start: 0, mid: 0.5, end: 1 }[anchor];
      const box = [from - 2, py + dy - 10, from + wide + 2, py + dy + 3];
      const free = box[0] > left && box[2] < right + 12 && box[1] > top - 14 && box[3] < bottom
        && !taken.some((one) => box[0] < one[2] && one[0] < box[2] && box[1] < one[3] && one[1] < box[3]);
      if (!free) continue;
      taken.push(box);
      view.append(text(px + dx, py + dy, label, `name ${anchor}${isWinner ? " strong" : ""}`));
      break;
    }
  }
}

function describe(point) {
  const sure = point.ends ? ` (${data.level * 100} % interval ${point.ends[0].toFixed(3)} to ${point.ends[1].toFixed(3)})` : "";
  const parts = [`${nameOf(point)}: score ${point.score.toFixed(4)}${sure}`];
  if (point.change !== null && point.label !== "dense") parts.push(`${points(point.change)} points against dense`);
  parts.push(`${megabytes(point.weights)} MB of weights`);
  if (point.ms) parts.push(`${short(point.ms)} ms`);
  if (point.share !== undefined && state.cost === "weights") parts.push(`on the frontier in ${Math.round(100 * point.share)} % of the repetitions`);
  parts.push(point.seeds[0] === 1 ? "1 seed" : `${point.seeds[0]} seeds`);
  return parts.join(", ");
}

// What is known of the winner, or of the point that was chosen in its place.
function showChosen() {
  const point = state.chosen && chart.shown.includes(state.chosen) ? state.chosen : chart.winner;
  byId("back").hidden = point === chart.winner;
  if (!point) {
    replace("chosen", make("p", { class: "nothing" }, "Nothing here fits these budgets. Move a slider back, or show more methods and models."));
    return;
  }
  const facts = [["Score", point.score.toFixed(4) + (point.ends ? `  (${point.ends.map((end) => end.toFixed(3)).join(" to ")})` : "")],
    ["Against dense", point.change === null || point.label === "dense" ? "\u2013" : `${points(point.change)} points`],
    ["Weights file", `${megabytes(point.weights)} MB`], ["Ideal size", point.ideal ? `${megabytes(point.ideal)} MB` : "\u2013"],
    ["Package", point.package ? `${megabytes(point.package)} MB` : "\u2013"],
    ["Latency", point.ms ? `${short(point.ms)} ms` : "not timed (multipress study measure)"]];
  replace("chosen",
    make("h3", {}, make("span", { class: "tag" }, point === chart.winner ? "Winner" : "Chosen"), ` ${nameOf(point)}`),
    make("dl", { class: "facts" }, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
    ...commands(point), ...parts(point));
}

function commands(point) {
  const several = point.runs.length > 1;
  const found = point.runs.filter((run) => data.runs[run]?.command).map((run) => {
    const command = data.runs[run].command;
    if (!several) return command;
    // One folder for each task: a command never writes into a folder that is there.
    const task = data.points.find((one) => one.runs.length === 1 && one.runs[0] === run)?.task ?? run;
    const name = task.replace(/[^A-Za-z0-9_.-]/g, "-");
    return command.replace(/ (OUT|TEACHER)(?=\s|$)/g, ` $1-${name}`);
  });
  if (!found.length) return [];
  const box = make("pre", { tabindex: "0", "aria-label": "Command that makes it" }, found.join("\n"));
  const button = make("button", { type: "button", class: "small" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(box.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(box);
      button.textContent = "Selected: press Ctrl-C";
    }
  });
  return [make("p", { class: "label" }, "The command that makes it ", button), box];
}

function parts(point) {
  const run = point.runs.find((one) => data.runs[one]?.parts?.length);
  if (!run) return [];
  const rows = data.runs[run].parts, total = rows.reduce((sum, row) => sum + row.bytes, 0), bar = draw("svg", {
    class: "parts", viewBox: "0 0 400 22", preserveAspectRatio: "none", role: "img",
    "aria-label": `Bytes of run ${run} by part: ${rows.map((row) => `${row.group} ${megabytes(row.bytes)} MB`).join(", ")}`,
  });
  let at = 0;
  rows.forEach((row, i) => {
    const wide = (400 * row.bytes) / total;
    bar.append(draw("rect", { x: at.toFixed(2), y: 0, width: Math.max(0, wide - 0.8).toFixed(2), height: 22, class: `c${(i % 7) + 1}` },
      draw("title", {}, `${row.group}: ${megabytes(row.bytes)} MB`)));
    at += wide;
  });
  const colored = rows.map((row, i) => [row, i]).filter(([row]) => row.bytes / total >= 0.002 || row.weights);
  const lines = colored.map(([row, i]) => [
    make("span", {}, draw("svg", { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": "true" }, draw("rect", { width: 10, height: 10, class: `c${(i % 7) + 1}` })), ` ${row.group}`),
    `${megabytes(row.bytes)}`, `${((100 * row.bytes) / total).toFixed(1)} %`, row.weights ? ((8 * row.bytes) / row.weights).toFixed(2) : "\u2013",
  ]);
  return [make("p", { class: "label" }, `Where its bytes are (run ${run})`), bar,
    make("div", { class: "scroll" }, table(["part", "MB", "share", "bits a weight"], lines))];
}

// Pointer and keyboard.
function nearest(event) {
  const box = byId("chart").querySelector("svg").getBoundingClientRect();
  let best = null, distance = 24;
  for (const place of chart.places) {
    const away = Math.hypot(place.x - (event.clientX - box.left), place.y - (event.clientY - box.top));
    if (away < distance) [best, distance] = [place, away];
  }
  return best;
}

function hover(place) {
  const tip = byId("tip");
  tip.hidden = !place;
  if (!place) return;
  const [name, ...rest] = [nameOf(place.point), ...describe(place.point).slice(nameOf(place.point).length + 2).split(", ")];
  tip.replaceChildren(make("strong", {}, name), ...rest.map((line) => make("div", {}, line)));
  const frame = byId("chart").getBoundingClientRect(), wide = tip.offsetWidth;
  tip.style.left = `${Math.min(Math.max(0, place.x + 14), frame.width - wide - 4)}px`;
  tip.style.top = `${place.y + 16}px`;
}

const repaint = responsive("chart", paint);

function listen() {
  const box = byId("chart");
  box.addEventListener("pointermove", (event) => hover(nearest(event)));
  box.addEventListener("pointerleave", () => hover(null));
  box.addEventListener("click", (event) => {
    const place = nearest(event);
    if (place) choose(place.point);
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" && state.focus) choose(state.focus);
    if (event.key === "Escape") hover(null);
    if (!step || !chart.shown.length) return;
    event.preventDefault();
    const now = chart.shown.indexOf(state.focus ?? state.chosen ?? chart.winner);
    state.focus = chart.shown[(now + step + chart.shown.length) % chart.shown.length];
    repaint();
    hover(chart.places.find((place) => place.point === state.focus));
    byId("live").textContent = describe(state.focus);
  });
  box.addEventListener("blur", () => hover(null));
  byId("back").addEventListener("click", () => choose(null));
  const bind = (selector, act) => document.querySelectorAll(selector).forEach((input) => input.addEventListener("input", () => {
    act(input);
    repaint();
  }));
  bind("#task", (input) => { state.task = input.value; });
  bind("input[name=cost]", (input) => { state.cost = input.value; });
  bind("#log", (input) => { state.log = input.checked; });
  bind("input[data-set]", (input) => state.sets[input.checked ? "delete" : "add"](Number(input.dataset.set)));
  bind("input[data-model]", (input) => state.models[input.checked ? "delete" : "add"](Number(input.dataset.model)));
  bind(".budgets input", () => { state.chosen = null; });
  document.querySelectorAll("button[data-budget]").forEach((button) => button.addEventListener("click", () => {
    // As in its table: the first task, the size of the weights file, the best score.
    state.chosen = null;
    state.task = byId("task").value = data.tasks[0];
    state.cost = "weights";
    for (const name of ["cost", "wish"]) document.querySelector(`input[name=${name}]`).checked = true;
    for (const [name, free] of [["ms", 1000], ["score", 0]]) if (byId(`max-${name}`)) byId(`max-${name}`).value = free;
    setBudget("mb", Number(button.dataset.budget) / 1e6);
    repaint();
    byId("explore").scrollIntoView({ behavior: "smooth" });
  }));
  document.querySelectorAll("button[data-all]").forEach((button) => button.addEventListener("click", () => {
    const inputs = [...button.closest("fieldset").querySelectorAll("input")], on = inputs.some((input) => !input.checked);
    inputs.forEach((input) => {
      input.checked = on;
      input.dispatchEvent(new Event("input"));
    });
  }));
}

function choose(point) {
  state.chosen = point;
  state.focus = point;
  repaint();
  if (point) byId("live").textContent = `Chosen: ${describe(point)}`;
}

listen();
repaint();
