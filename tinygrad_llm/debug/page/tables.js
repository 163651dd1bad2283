// --- figures of tokens -----------------------------------------------------------------------------------------------

function showTable({ title, facts, tokens, rows }) {
  const flag = values => typeof values[0] === "boolean";
  const short = x => typeof x === "boolean" ? (x ? "yes" : "") : typeof x === "string" ? x
    : (Math.abs(x) < 5e-4 ? "0" : Math.abs(x) < 100 ? x.toFixed(3) : x.toPrecision(4)).replace("-", "−");
  const wash = ({ values, neutral, scale }, k) => {
    const x = values[k];
    const code = typeof x === "boolean" ? codeOf(Number(x), 1) : typeof x === "string" ? codeOf(x)
      : codeOf(Math.max(-scale, Math.min(scale, x - neutral)), scale);
    return `color-mix(in srgb, ${css(code)} 65%, transparent)`; // figures are to be read on it
  };
  const words = k => rows.map(row => `${row.name} ${flag(row.values) ? short(row.values[k]) || "no" : show(row.values[k])}`);
  let chosen = Math.max(0, rows.findIndex(({ name }) => name === "advantage"));

  const chooser = make("div", { role: "group", ariaLabel: "colour by" }), strip = make("p", { className: "strip" });
  const hint = make("p", { className: "hint" }), table = make("table"), lines = [];
  const light = k => [lines, spans].forEach(all => all.forEach((element, i) => element.classList.toggle("lit", i === k)));
  const tell = k => { light(k); hint.textContent = `${tokens[k]}   ${words(k).join(" · ")}`; };
  const spans = tokens.map((token, k) => make("span", { title: words(k).join("\n"), onpointerenter: () => tell(k) }, token));
  strip.append(...spans.flatMap(span => [span, make("wbr")]));
  const choose = () => {
    chooser.replaceChildren("colour by", ...rows.map((row, k) => make("button",
      { title: row.about, ariaPressed: String(k === chosen), onclick: () => { chosen = k; choose(); } }, row.name)));
    spans.forEach((span, k) => { span.style.background = wash(rows[chosen], k); });
    hint.textContent = `${rows[chosen].name}: ${rows[chosen].about}`;
  };

  table.append(make("thead", {}, make("tr", {}, make("th", {}, "token"), ...rows.map(({ name, about }) => make("th", { title: about }, name)))));
  tokens.forEach((token, k) => lines.push(make("tr", { onpointerenter: () => light(k) }, make("th", {}, token), ...rows.map(row => {
    const cell = make("td", { title: `${row.name} ${show(row.values[k], 6)}` }, short(row.values[k]));
    cell.style.background = wash(row, k);
    return cell;
  }))));
  table.append(make("tbody", {}, ...lines));
  table.append(make("tfoot", {}, make("tr", {}, make("th", {}, "sum"),
    ...rows.map(({ sum }) => make("td", {}, sum === undefined ? "" : Number.isInteger(sum) ? show(sum) : short(sum))))));

  $("tables").hidden = false;
  $("tables").append(make("section", { className: "figures" }, make("h2", {}, title),
    make("dl", {}, ...Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, show(value))])),
    make("div", { className: "chooser" }, chooser), strip, hint, make("div", { className: "scroll" }, table)));
  choose();
}
