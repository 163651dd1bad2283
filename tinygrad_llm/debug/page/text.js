// --- the text --------------------------------------------------------------------------------------------------------

function showText() {
  const text = data.text, word = k => text.tokens[text.ids[k]];
  $("text").hidden = false;
  $("text-notes").textContent = [`Mean ${show(text.mean)} nats: the stronger the colour, the less the model expected the token.`,
    ...text.notes].join(" ");
  const worst = Math.max(...text.losses.filter(Number.isFinite));
  text.ids.forEach((_, k) => {
    const span = make("span", {}, word(k)), loss = text.losses[k - 1];
    if (k && loss !== null) span.style.background = css(codeOf(loss, worst));
    const words = k && loss === null ? `${word(k)}   not in the loss` : k ? `${word(k)}   loss ${show(loss)}, probability ${show(typeof loss === "number" ? Math.exp(-loss) : NaN, 3)}`
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
