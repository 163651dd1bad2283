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
  const words = Array.from({ length: text.looked_at }, (_, k) => word(k));
  showAttention(text.attention, words, words, { layers: $("layers"), heads: $("heads"), drawn: $("attention") });
  showLens(text, word);
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
