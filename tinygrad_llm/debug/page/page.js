// --- one step --------------------------------------------------------------------------------------------------------

const parts = name => name.split(".").flatMap((part, k) => k ? [".", make("wbr"), part] : [part]); // where a line may break
const link = (position, text) => make("button", { onclick: () => go(position), title: "go to this step" }, ...parts(text));

function showStep() {
  const step = data.steps[now], op = data.ops[step.op];
  $("slider").value = now;
  $("position").textContent = `step ${(step.i + 1).toLocaleString("en")} of ${data.n.toLocaleString("en")}`;
  $("previous").disabled = now === 0;
  $("next").disabled = now === data.steps.length - 1;
  $("name").replaceChildren(step.name, ...step.variable ? [" ", make("span", { className: "variable" }, step.variable)] : []);
  $("verdict").textContent = { ok: "✓ checked", wrong: "✗ wrong", kink: "kink", none: "not checked" }[step.verdict];
  $("verdict").className = `badge ${step.verdict}`;
  $("forward").textContent = op.forward || "—";
  $("backward").textContent = step.worked || "—";
  const senders = [];
  step.senders.forEach((position, k) => senders.push(k ? ", " : "from ", link(position, data.steps[position].name)));
  if (!step.senders.length) senders.push(step.i ? "from steps that are left out" : "dL/dL, where the walk begins");
  const sum = step.uses > 1 ? ` — ${partsOf("step", now, "", ", ")}the sum over its ${step.uses.toLocaleString("en")} uses` : "";
  $("senders").replaceChildren(...senders, sum);
  $("g").replaceChildren(figure(step.g, "g"), make("p", { className: "hint" }, `norm |g| ${show(step.norm)}`));
  $("saved").replaceChildren(...step.saved.map(({ name, array, text }) => array !== undefined ? figure(array, name)
    : make("figure", {}, make("figcaption", {}, name, make("span", {}, ` ${text}`)))), more(step.more_saved));
  if (!step.saved.length) $("saved").replaceChildren(make("p", { className: "hint" }, "nothing"));
  $("out").replaceChildren(...step.out.map(out => figure(out.array, `d${out.argument} → `,
    ...out.step !== undefined ? [link(out.step, out.to)] : parts(out.to))), more(step.more_out));
  $("check").textContent = step.check;
  $("check").className = step.verdict;
  showLine("user", step.code, `${step.file}:${step.line} in ${step.function}`);
  showLine("layer", step.layer && step.layer.code, step.layer && step.layer.place);
  showLine("twin", step.twin && step.twin.code, step.twin && step.twin.place);
  $("run").hidden = step.result === null;
  $("args").replaceChildren(...step.args.map(({ name, variable, array }) => figure(array, name,
    variable && make("b", { className: "variable" }, ` = ${variable}`))));
  $("result").replaceChildren(...step.result === null ? [] : [figure(step.result, step.variable || "output")]);
  $("inside").hidden = !step.heads.length;
  showHead(step, Math.min(head, step.heads.length - 1));
  $("source").hidden = !op.source;
  $("source").firstElementChild.textContent = `The lines of this backward, ${op.place}`;
  $("source").lastElementChild.textContent = op.source;
}

function showHead(step, chosen) { // a later step shows the same head
  if (!step.heads.length) return;
  head = chosen;
  $("inside-heads").replaceChildren("head", ...step.heads.map((_, k) => make("button",
    { ariaPressed: String(k === head), onclick: () => showHead(step, k) }, k)));
  $("matrices").replaceChildren(...Object.entries(step.heads[head]).map(([name, array]) => make("div", {}, figure(array, name))));
}

function showLine(id, code, place) { // nothing, where there is no source
  $(id).replaceChildren(...code ? [make("code", {}, code), make("span", { title: place }, place.split(/[\\/]/).at(-1))] : []);
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
data.tables.forEach(showTable);
data.alignments.forEach(showAlignment);
if (data.text) showText();
go(0);
