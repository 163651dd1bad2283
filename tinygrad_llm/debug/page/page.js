"use strict";
// Texts of the data reach the page as text nodes only: a token may hold any markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const NAN = 0, ZERO = 129, STEPS = 126; // the codes of tape/picture.py
let now = 0;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children.filter(child => child !== null && child !== ""));
  return element;
}

// --- arrays as colours -----------------------------------------------------------------------------------------------

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const valueOf = (code, scale) =>
  code === NAN ? NaN : code < 3 ? (code === 2 ? Infinity : -Infinity)
  : Math.sign(code - ZERO) * ((code - ZERO) / STEPS) ** 2 * scale;

function colour(code) { // red, green, blue, alpha; the page shines through where a value is near 0
  if (code === NAN) return [217, 70, 239, 255];
  if (code < 3) return [5, 150, 105, 255];
  const alpha = Math.floor(Math.abs(code - ZERO) * 255 / STEPS);
  return code < ZERO ? [37, 99, 235, alpha] : [234, 88, 12, alpha];
}

function codeOf(value, scale) {
  if (value === "NaN") return NAN;
  if (value === "Inf" || value === "-Inf") return 2;
  return ZERO + Math.sign(value) * Math.round(STEPS * Math.sqrt(Math.abs(value) / (scale || 1)));
}

const css = code => { const [r, g, b, a] = colour(code); return `rgb(${r} ${g} ${b} / ${a / 255})`; };

function paint(canvas, codes, rows, cols) {
  canvas.width = cols;
  canvas.height = rows;
  const image = new ImageData(cols, rows);
  codes.forEach((code, k) => image.data.set(colour(code), 4 * k));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function show(x, digits = 4) {
  if (typeof x === "string") return x;
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "Inf" : "-Inf";
  const size = Math.abs(x);
  const text = size && (size < 1e-3 || size >= 1e6) ? x.toExponential(digits - 1) : String(Number(x.toPrecision(digits)));
  return text.replaceAll("-", "−").replace("e+", "e");
}

const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const shapeOf = shape => `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;

function tip(event, text) {
  $("tip").hidden = !text;
  $("tip").textContent = text || "";
  if (!text) return;
  const { offsetWidth: w, offsetHeight: h } = $("tip");
  $("tip").style.left = `${Math.min(event.clientX + 14, innerWidth - w - 8)}px`;
  $("tip").style.top = `${event.clientY + 18 + h > innerHeight ? event.clientY - h - 10 : event.clientY + 18}px`;
}

// Calls enter(row, column) for the cell below the pointer, and leave() when it has gone.
function cellsUnder(canvas, rows, cols, enter, leave) {
  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / box.height * rows);
    const col = Math.floor((event.clientX - box.left) / box.width * cols);
    if (row >= 0 && row < rows && col >= 0 && col < cols) enter(event, row, col);
  });
  canvas.addEventListener("pointerleave", leave);
}

function indexOf(shape, row, col) { // of an element, from its row in the flattened leading axes
  const index = [col];
  for (let axis = shape.length - 2; axis >= 0; axis--) {
    index.unshift(row % shape[axis]);
    row = Math.floor(row / shape[axis]);
  }
  return index;
}

function heatmap(array) {
  const { rows, cols, shape, scale } = array, codes = bytes(array.cells);
  const canvas = paint(make("canvas"), codes, rows, cols);
  const height = Math.max(14, Math.min(200, 280 * rows / cols));
  canvas.style.height = `${height}px`;
  canvas.style.maxWidth = `${Math.max(28, Math.min(420, 3 * height * cols / rows))}px`;
  const m = shape.at(-1), n = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  cellsUnder(canvas, rows, cols, (event, r, c) => {
    const first = indexOf(shape, Math.floor(r * n / rows), Math.floor(c * m / cols));
    const last = indexOf(shape, Math.floor((r + 1) * n / rows) - 1, Math.floor((c + 1) * m / cols) - 1);
    const where = `[${first.join(", ")}]` + (first.join() === last.join() ? "" : ` to [${last.join(", ")}]`);
    const exact = array.values && array.values[r * cols + c];
    tip(event, `${where} ${exact !== undefined ? show(exact, 6) : `≈ ${show(valueOf(codes[r * cols + c], scale), 3)}`}`);
  }, () => tip());
  return canvas;
}

function numbers(array) { // few enough to be written out
  const cols = array.shape.length ? array.shape.at(-1) : 1;
  const grid = make("div", { className: "numbers" });
  grid.style.gridTemplateColumns = `repeat(${cols}, minmax(0, 1fr))`;
  for (const value of array.values) {
    const cell = make("span", { title: show(value, 6) }, show(value, 3));
    cell.style.background = css(codeOf(value, array.scale));
    grid.append(cell);
  }
  return grid;
}

function figure(number, ...caption) {
  const array = data.arrays[number];
  const heading = make("figcaption", {}, ...caption, make("span", {}, ` ${shapeOf(array.shape)} ${array.dtype}`));
  if (array.norm === undefined) return make("figure", {}, heading, make("p", { className: "stats" }, "empty"));
  const words = [];
  if (array.min !== undefined && !(array.values && array.values.length === 1)) {
    words.push(`${show(array.min)} … ${show(array.max)}, mean ${show(array.mean, 3)}`);
  }
  const odd = [[array.nan, "NaN"], [array.inf, "Inf"]].filter(([n]) => n).map(([n, word]) => `${n.toLocaleString("en")} ${word}`);
  const stats = make("p", { className: "stats" }, words.join(""), words.length && odd.length ? " · " : "",
    odd.length ? make("b", {}, odd.join(" · ")) : "");
  const picture = array.values && !(array.shape.at(-1) > 6) ? numbers(array) : array.cells ? heatmap(array) : "";
  return make("figure", {}, heading, picture, stats);
}

// --- one step --------------------------------------------------------------------------------------------------------

const parts = name => name.split(".").flatMap((part, k) => k ? [".", make("wbr"), part] : [part]); // where a line may break
const link = (position, text) => make("button", { onclick: () => go(position), title: "go to this step" }, ...parts(text));

function showStep() {
  const step = data.steps[now], op = data.ops[step.op];
  $("slider").value = now;
  $("position").textContent = `step ${(step.i + 1).toLocaleString("en")} of ${data.n.toLocaleString("en")}`;
  $("previous").disabled = now === 0;
  $("next").disabled = now === data.steps.length - 1;
  $("name").textContent = step.name;
  $("verdict").textContent = { ok: "✓ checked", wrong: "✗ wrong", kink: "kink", none: "not checked" }[step.verdict];
  $("verdict").className = `badge ${step.verdict}`;
  $("forward").textContent = op.forward || "—";
  $("backward").textContent = op.backward || "—";
  const senders = [];
  step.senders.forEach((position, k) => senders.push(k ? ", " : "from ", link(position, data.steps[position].name)));
  if (!step.senders.length) senders.push(step.i ? "from steps that are left out" : "dL/dL, where the walk begins");
  const sum = step.uses > 1 ? ` — the sum over its ${step.uses.toLocaleString("en")} uses` : "";
  $("senders").replaceChildren(...senders, sum);
  $("g").replaceChildren(figure(step.g, "g"), make("p", { className: "hint" }, `norm |g| ${show(step.norm)}`));
  $("saved").replaceChildren(...step.saved.map(({ name, array, text }) => array !== undefined ? figure(array, name)
    : make("figure", {}, make("figcaption", {}, name, make("span", {}, ` ${text}`)))), more(step.more_saved));
  if (!step.saved.length) $("saved").replaceChildren(make("p", { className: "hint" }, "nothing"));
  $("out").replaceChildren(...step.out.map(out => figure(out.array, `d${out.argument} → `,
    ...out.step !== undefined ? [link(out.step, out.to)] : parts(out.to))), more(step.more_out));
  $("check").textContent = step.check;
  $("check").className = step.verdict;
  $("code").textContent = step.code;
  $("code").hidden = !step.code;
  $("site").textContent = `${step.file.split(/[\\/]/).at(-1)}:${step.line} in ${step.function}`;
  $("site").title = `${step.file}:${step.line}`;
  $("source").hidden = !op.source;
  $("source").firstElementChild.textContent = `The lines of this backward, ${op.place}`;
  $("source").lastElementChild.textContent = op.source;
}

const more = n => n ? make("p", { className: "hint" }, `and ${n.toLocaleString("en")} more, left out`) : "";

function go(position) {
  now = Math.max(0, Math.min(data.steps.length - 1, position));
  tip();
  showStep();
  drawGraph();
  drawNorms();
}

// --- the norms of all steps ------------------------------------------------------------------------------------------

function drawNorms() {
  const canvas = $("norms"), { clientWidth: width, clientHeight: height } = canvas;
  const context = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  context.scale(devicePixelRatio, devicePixelRatio);
  const logs = data.steps.map(({ norm }) => typeof norm === "number" && norm > 0 ? Math.log10(norm) : null);
  const known = logs.filter(log => log !== null);
  const low = Math.min(...known), high = Math.max(...known), wide = width / data.steps.length;
  data.steps.forEach((step, k) => {
    const odd = typeof step.norm !== "number";
    const share = odd ? 1 : logs[k] === null ? 0 : high > low ? (logs[k] - low) / (high - low) : 0.5;
    const tall = 3 + share * (height - 5);
    context.fillStyle = odd ? css(NAN) : style.getPropertyValue(k === now ? "--accent" : "--line");
    context.fillRect(k * wide, height - tall, Math.max(1, wide - (wide > 4 ? 2 : 0)), tall);
  });
}

// --- the graph, folded by module -------------------------------------------------------------------------------------

const opened = new Map(); // path -> what the reader chose; where nothing was chosen, the way to this step is open
const root = { path: "", label: "", depth: -1, modules: new Map(), items: [], ops: 0, bytes: 0, numbers: 0, gap: 0 };

function moduleAt(path) {
  let module = root;
  if (path) {
    for (const label of path.split(".")) {
      if (!module.modules.has(label)) {
        const child = { ...root, path: module.path ? `${module.path}.${label}` : label, label, depth: module.depth + 1,
          outer: module, modules: new Map(), items: [] };
        module.modules.set(label, child);
        module.items.push({ module: child });
      }
      module = module.modules.get(label);
    }
  }
  return module;
}

const outwards = function* (module) { for (; module; module = module.outer) yield module; };

const homes = data.steps.map((step, k) => {
  const module = moduleAt(data.modules[step.module].path);
  module.items.push({ step: k, label: step.name.slice(module.path ? module.path.length + 1 : 0) });
  return module;
});
const gaps = data.modules.map(({ path, ops, bytes, left_out }) => {
  const module = moduleAt(path);
  for (const around of outwards(module)) { around.ops += ops; around.bytes += bytes; }
  module.gap = left_out;
  if (left_out) module.items.push({ gap: left_out });
  return module;
});
const leafHomes = data.leaves.map((leaf, k) => {
  const module = leaf.module === null ? root : gaps[leaf.module];
  for (const around of outwards(module)) around.numbers += leaf.shape.reduce((a, b) => a * b, 1);
  module.items.push({ leaf: k, label: leaf.name.slice(module.path ? module.path.length + 1 : 0) });
  return module;
});

const isOpen = module => opened.get(module.path) ?? [...outwards(homes[now])].includes(module);

function visibleRows() {
  const rows = [], place = { step: [], leaf: [], module: new Map() };
  const visit = (module, hidden) => { // hidden: the row of the folded module around it
    const index = hidden ?? rows.length - 1;
    place.module.set(module, index);
    for (const item of module.items) {
      if (hidden === undefined) rows.push({ ...item, depth: module.depth + 1 });
      const row = hidden ?? rows.length - 1;
      if (item.module) visit(item.module, hidden ?? (isOpen(item.module) ? undefined : row));
      else if (item.step !== undefined) place.step[item.step] = row;
      else if (item.leaf !== undefined) place.leaf[item.leaf] = row;
      else place.module.set(module, row); // where its steps that are left out are
    }
  };
  visit(root);
  return [rows, place];
}

function drawRow(row, isNow) {
  const button = make("button", { className: Object.keys(row)[0] });
  button.style.paddingLeft = `${6 + 14 * row.depth}px`;
  const label = text => make("span", { className: "label", title: text }, text);
  if (row.module) {
    const { module } = row, open = isOpen(module);
    const summary = [count(module.ops, "op"), ...(module.numbers ? [`${module.numbers.toLocaleString("en")} parameters`] : [])];
    button.append(`${open ? "▾" : "▸"}`, label(module.label), make("small", {}, summary.join(" · ")));
    button.title = `${module.path}: ${summary.join(", ")}, ${module.bytes.toLocaleString("en")} bytes saved`;
    button.setAttribute("aria-expanded", open);
    button.onclick = () => { opened.set(module.path, !open); drawGraph(); };
  } else if (row.step !== undefined) {
    const step = data.steps[row.step];
    button.append(label(row.label), make("small", {}, `|g| ${show(step.norm, 2)}`));
    button.onclick = () => go(row.step);
  } else if (row.leaf !== undefined) {
    const leaf = data.leaves[row.leaf];
    button.append(label(row.label), make("small", {}, `${shapeOf(leaf.shape)} |∇| ${leaf.norm === null ? "none" : show(leaf.norm, 2)}`));
    button.tabIndex = -1;
  } else {
    button.append(label(`${count(row.gap, "op")} left out`));
    button.tabIndex = -1;
  }
  if (isNow) button.setAttribute("aria-current", "step");
  return make("li", {}, button);
}

function drawGraph() {
  const [rows, place] = visibleRows(), tall = 25;
  const current = place.step[now];
  $("rows").replaceChildren(...rows.map((row, k) => drawRow(row, k === current)));
  const found = new Map();
  data.steps.forEach((step, k) => {
    for (const out of step.out) {
      const end = out.step !== undefined ? place.step[out.step] : out.leaf !== undefined ? place.leaf[out.leaf]
        : out.module !== undefined ? place.module.get(gaps[out.module]) : undefined;
      const start = place.step[k];
      if (end === undefined || end === start) continue;
      const key = `${start} ${end}`;
      found.set(key, { start, end, lit: k === now || found.get(key)?.lit });
    }
  });
  const paths = [...found.values()].sort((a, b) => (a.lit || false) - (b.lit || false)).map(({ start, end, lit }) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const y = row => (row + 0.5) * tall, bulge = Math.min(44, 5 + 5 * Math.abs(end - start));
    path.setAttribute("d", `M46 ${y(start)} C${46 - bulge} ${y(start)} ${46 - bulge} ${y(end)} 46 ${y(end)}`);
    if (lit) path.setAttribute("class", "now");
    return path;
  });
  $("edges").style.height = `${rows.length * tall}px`;
  $("edges").replaceChildren(...paths);
  const box = $("graph"), top = $("rows").parentElement.offsetTop + current * tall;
  if (top < box.scrollTop + 40 || top > box.scrollTop + box.clientHeight - 60) box.scrollTop = top - box.clientHeight / 2;
}

// --- the text --------------------------------------------------------------------------------------------------------

function showText() {
  const text = data.text, word = k => text.tokens[text.ids[k]];
  $("text").hidden = false;
  $("text-notes").textContent = [`Mean ${show(text.mean)} nats: the stronger the colour, the less the model expected the token.`,
    ...text.notes].join(" ");
  const worst = Math.max(...text.losses.filter(Number.isFinite));
  text.ids.forEach((_, k) => {
    const span = make("span", {}, word(k)), loss = text.losses[k - 1];
    if (k) span.style.background = css(codeOf(loss, worst));
    const words = k ? `${word(k)}   loss ${show(loss)}, probability ${show(typeof loss === "number" ? Math.exp(-loss) : NaN, 3)}`
      : `${word(0)}   the first token: nothing foretells it`;
    span.title = words;
    span.onpointerenter = () => { $("token").textContent = words; };
    $("tokens").append(span, make("wbr"));
  });
  showAttention(text, word);
  showLens(text, word);
}

function showAttention(text, word) {
  const n = text.looked_at;
  let layer = 0, head = 0;
  const choose = () => {
    $("layers").replaceChildren("layer", ...text.attention.map(({ layer: name }, k) => make("button",
      { ariaPressed: String(k === layer), onclick: () => { layer = k; choose(); } }, name)));
    $("heads").replaceChildren("head", ...text.attention[layer].heads.map((cells, k) => make("button",
      { className: "map", title: `head ${k}`, ariaLabel: `head ${k}`, ariaPressed: String(k === head), onclick: () => { head = k; choose(); } },
      paint(make("canvas"), bytes(cells), n, n))));
    draw();
  };
  const draw = () => {
    const codes = bytes(text.attention[layer].heads[head]), cell = Math.max(14, Math.min(26, Math.floor(420 / n)));
    const canvas = paint(make("canvas"), codes, n, n);
    canvas.style.width = canvas.style.height = `${n * cell}px`;
    const across = make("div", { className: "across" }), down = make("div", { className: "down" });
    for (let k = 0; k < n; k++) {
      const column = make("span", {}, word(k)), row = make("span", {}, word(k));
      column.style.width = column.style.lineHeight = row.style.height = row.style.lineHeight = `${cell}px`;
      across.append(column);
      down.append(row);
    }
    const light = (r, c) => {
      [...down.children].forEach((span, k) => span.classList.toggle("lit", k === r));
      [...across.children].forEach((span, k) => span.classList.toggle("lit", k === c));
    };
    cellsUnder(canvas, n, n, (event, r, c) => {
      light(r, c);
      tip(event, `${word(r)} looks at ${word(c)} ≈ ${show(valueOf(codes[r * n + c], 1), 3)}`);
    }, () => { light(); tip(); });
    $("attention").replaceChildren(across, down, canvas);
  };
  choose();
}

function showLens(text, word) {
  const say = (token, p) => `${text.tokens[token]} ${show(p, 3)}`;
  const head = make("tr", {}, make("th", {}, "after reading"));
  for (let k = 0; k < text.looked_at; k++) head.append(make("th", {}, word(k)));
  const body = make("tbody");
  text.lens.forEach((row, layer) => {
    const line = make("tr", {}, make("th", {}, text.attention[layer]?.layer ?? `block ${layer}`));
    row.forEach(candidates => {
      const [token, p] = candidates[0], cell = make("td", {}, text.tokens[token]);
      cell.style.background = css(codeOf(p, 1));
      cell.title = candidates.map(pair => say(...pair)).join("\n");
      cell.onpointerenter = () => { $("candidates").textContent = candidates.map(pair => say(...pair)).join("    "); };
      line.append(cell);
    });
    body.append(line);
  });
  $("lens").append(make("thead", {}, head), body);
}

// --- begin -----------------------------------------------------------------------------------------------------------

$("about").textContent = `Loss ${show(data.loss, 6)}, ${count(data.n, "step")} back from it: `
  + "each takes g, the slope of the loss by its result, and passes on the slope by its inputs. Arrow keys step.";
$("notes").append(...data.notes.map(note => make("li", {}, note)));
paint($("scale"), Uint8Array.from({ length: 253 }, (_, k) => k + 3), 1, 253);
$("slider").max = data.steps.length - 1;
$("slider").oninput = () => go(Number($("slider").value));
$("previous").onclick = () => go(now - 1);
$("next").onclick = () => go(now + 1);
$("norms").onclick = event => go(Math.floor(event.offsetX / $("norms").clientWidth * data.steps.length));
addEventListener("keydown", event => {
  if (event.target === $("slider") || event.ctrlKey || event.metaKey || event.altKey) return; // a slider knows its keys
  const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: data.steps.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  go(to);
});
addEventListener("resize", drawNorms);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawNorms);
if (data.text) showText();
go(0);
