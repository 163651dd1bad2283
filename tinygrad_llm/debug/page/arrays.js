"use strict";
// Texts of the data reach the page as text nodes only: a token may hold any markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const NAN = 0, ZERO = 129, STEPS = 126; // the codes of debug/picture.py
let now = 0, head = 0; // the step and the head that are shown

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
