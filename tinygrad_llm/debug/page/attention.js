// --- attention -------------------------------------------------------------------------------------------------------

// A picture of each layer and head: `rows` are the tokens that look, `columns` those that are looked at.
function showAttention(maps, rows, columns, { layers, heads, drawn }, first = 0) {
  let layer = first, head = 0;
  const nameOf = k => maps[layer].names?.[k] ?? `head ${k}`;
  const choose = () => {
    layers.replaceChildren("layer", ...maps.map(({ layer: name }, k) => make("button",
      { ariaPressed: String(k === layer), onclick: () => { layer = k; choose(); } }, name)));
    heads.replaceChildren("head", ...maps[layer].heads.map((cells, k) => make("button",
      { className: "map", title: nameOf(k), ariaLabel: nameOf(k), ariaPressed: String(k === head), onclick: () => { head = k; choose(); } },
      paint(make("canvas"), bytes(cells), rows.length, columns.length))));
    draw();
  };
  const draw = () => {
    const codes = bytes(maps[layer].heads[head]), cell = Math.max(14, Math.min(26, Math.floor(420 / Math.max(rows.length, columns.length))));
    const canvas = paint(make("canvas"), codes, rows.length, columns.length);
    canvas.style.width = `${columns.length * cell}px`;
    canvas.style.height = `${rows.length * cell}px`;
    const across = make("div", { className: "across" }), down = make("div", { className: "down" });
    columns.forEach(word => {
      const column = make("span", {}, word);
      column.style.width = column.style.lineHeight = `${cell}px`;
      across.append(column);
    });
    rows.forEach(word => {
      const row = make("span", {}, word);
      row.style.height = row.style.lineHeight = `${cell}px`;
      down.append(row);
    });
    const light = (r, c) => {
      [...down.children].forEach((span, k) => span.classList.toggle("lit", k === r));
      [...across.children].forEach((span, k) => span.classList.toggle("lit", k === c));
    };
    cellsUnder(canvas, rows.length, columns.length, (event, r, c) => {
      light(r, c);
      tip(event, `${rows[r]} looks at ${columns[c]} ≈ ${show(valueOf(codes[r * columns.length + c], 1), 3)}`);
    }, () => { light(); tip(); });
    drawn.replaceChildren(across, down, canvas);
  };
  choose();
}

// Of a text that was written from another one: where its tokens have looked.
function showAlignment({ title, about, source, target, attention }) {
  const layers = make("div", { role: "group", ariaLabel: "layer" }), heads = make("div", { role: "group", ariaLabel: "head" });
  const drawn = make("div", { className: "attention" });
  $("tables").hidden = false;
  $("tables").append(make("section", { className: "figures alignment" }, make("h2", {}, title), make("p", { className: "hint" }, about),
    make("div", { className: "chooser" }, layers, heads), make("div", { className: "scroll" }, drawn)));
  showAttention(attention, target, source, { layers, heads, drawn }, attention.length - 1);
}
