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
  module.items.push({ step: k, label: step.label });
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

// "8 + 8" of what was sent to a step or a leaf, where it is numbers and more than one.
function partsOf(kind, k, before, after) {
  const sent = data.steps.flatMap(step => step.out.filter(out => out[kind] === k).map(out => data.arrays[out.array].values));
  if (sent.length < 2 || sent.some(values => !values || values.length !== 1)) return "";
  return before + sent.map(([value]) => show(value)).join(" + ") + after;
}

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
    button.append(label(row.label), step.variable && make("span", { className: "variable" }, step.variable),
      make("small", {}, `|g| ${show(step.norm, 2)}`));
    button.onclick = () => go(row.step);
  } else if (row.leaf !== undefined) {
    const leaf = data.leaves[row.leaf];
    const sum = partsOf("leaf", row.leaf, "∇ ", ", ") + (leaf.norm === null ? "|∇| none" : `|∇| ${show(leaf.norm, 2)}`);
    button.append(label(row.label), make("small", {}, `${shapeOf(leaf.shape)} ${sum}`));
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
