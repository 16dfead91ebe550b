"use strict";
// What is chosen on the page: a place in the text, a layer, a head. Everything is drawn from these.
const data = JSON.parse(document.getElementById("data").textContent);
const chosen = { place: data.places.length - 1, layer: 0, head: 0 };
const find = (selector) => document.querySelector(selector);
const make = (name, settings = {}, ...children) => {
  const element = Object.assign(document.createElement(name), settings);
  element.append(...children);
  return element;
};
const perCent = (p) => {
  const percent = 100 * p;
  return percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(percent >= 9.95 ? 0 : 1)} %`;
};
const shown = (piece) =>
  piece.replaceAll("\r", "").replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ | $/g, "␣") || "∅";

// The alternatives at the chosen place.

function bars(alternatives, there) {
  const items = alternatives.map(([piece, p]) => {
    const item = make("li", { className: piece === there ? "there" : "" },
      make("span", { textContent: perCent(p) }), make("span", { textContent: shown(piece) }));
    item.style.setProperty("--p", p);
    return item;
  });
  return make("ol", { className: "bars" }, ...items);
}

function showAlternatives() {
  const at = data.places[chosen.place];
  const said = [];
  if (!at) {
    said.push(make("h3", { textContent: "After the text" }), bars(data.following));
  } else {
    const [piece, p, rank, alternatives] = at;
    said.push(make("h3", { textContent: `“${shown(piece)}”` }));
    if (p === null) {
      said.push(make("p", { textContent: "The first token: nothing predicts it." }));
    } else {
      const bits = -Math.log2(Math.max(p, 1e-38));
      said.push(make("p", { textContent: `${perCent(p)}, ${bits.toFixed(1)} bits, number ${rank} of what was expected here:` }));
      said.push(bars(alternatives, piece));
    }
  }
  find("#panel").replaceChildren(...said);
}

// Attention: entries[layer][head][row] is a list of [column, weight].

function unpacked(packed) {
  const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const counts = bytes(packed.counts), weights = bytes(packed.weights);
  const columns = new DataView(bytes(packed.columns).buffer);
  let row = 0, entry = 0;
  return Array.from({ length: packed.layers }, () => Array.from({ length: packed.heads }, () =>
    Array.from({ length: packed.length }, () => Array.from({ length: counts[row++] }, () => {
      const found = [columns.getUint16(2 * entry, true), weights[entry] / 255];
      entry += 1;
      return found;
    }))));
}

const attention = data.attention && unpacked(data.attention);
const rows = () => attention[chosen.layer][chosen.head];
const dark = matchMedia("(prefers-color-scheme: dark)");

function drawHead(canvas, entries) {
  const size = entries.length;
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d"), image = context.createImageData(size, size);
  const [red, green, blue] = dark.matches ? [125, 184, 245] : [11, 87, 164];
  entries.forEach((row, i) => row.forEach(([j, weight]) =>
    image.data.set([red, green, blue, 255 * Math.sqrt(weight)], 4 * (i * size + j))));
  context.putImageData(image, 0, 0);
}

function makeHeads() {
  const { layers, heads } = data.attention, grid = find("#heads");
  grid.style.gridTemplateColumns = `repeat(${heads}, minmax(0, 4rem))`;
  attention.forEach((ofLayer, layer) => ofLayer.forEach((entries, head) => {
    const canvas = make("canvas");
    const button = make("button", { type: "button", onclick: () => choose({ layer, head }) }, canvas);
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", `layer ${layer}, head ${head}`);
    drawHead(canvas, entries);
    grid.append(button);
  }));
  dark.addEventListener("change", () => grid.querySelectorAll("canvas").forEach((canvas, n) =>
    drawHead(canvas, attention[Math.floor(n / heads)][n % heads])));
  for (const [name, count] of [["layer", layers], ["head", heads]]) {
    const select = find(`#${name}`);
    select.append(...Array.from({ length: count }, (_, n) => new Option(n, n)));
    select.onchange = () => choose({ [name]: Number(select.value) });
  }
  grid.onkeydown = (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const within = (n, count) => Math.max(0, Math.min(count - 1, n));
    choose({ layer: within(chosen.layer + move[0], layers), head: within(chosen.head + move[1], heads) });
    grid.children[chosen.layer * heads + chosen.head].focus();
  };
  find("#arcs ol").append(...data.places.map(([piece], place) => {
    const button = make("button", { type: "button", textContent: shown(piece), tabIndex: -1,
      onclick: () => choose({ place }), onpointerenter: () => choose({ place }) });
    return make("li", {}, button);
  }));
}

function drawArcs() {
  const svg = find("#arcs svg"), list = find("#arcs ol");
  const width = svg.clientWidth || 160, step = list.children[0].offsetHeight;
  const height = step * data.places.length;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const drawn = [];
  rows().forEach((row, i) => row.forEach(([j, weight]) => {
    const kind = i === chosen.place ? "reads" : j === chosen.place ? "read" : "";
    const one = document.createElementNS("http://www.w3.org/2000/svg", i === j ? "circle" : "path");
    const from = (i + 0.5) * step, to = (j + 0.5) * step;
    if (i === j) {
      one.setAttribute("cx", width - 5);
      one.setAttribute("cy", from);
      one.setAttribute("r", 4 * Math.sqrt(weight));
    } else {
      const reach = width - 8 - Math.min((width - 12) * 1.3, 14 + (from - to) * 0.6);
      one.setAttribute("d", `M${width - 8} ${from}C${reach} ${from} ${reach} ${to} ${width - 8} ${to}`);
      one.setAttribute("stroke-width", 0.5 + 3.5 * weight);
    }
    one.setAttribute("class", kind);
    one.setAttribute("opacity", kind ? 0.35 + 0.65 * weight : 0.35 * weight);
    drawn[kind ? "push" : "unshift"](one);
  }));
  svg.replaceChildren(...drawn);
}

function showReading() {
  const place = Math.min(chosen.place, data.places.length - 1);
  const read = [...rows()[place]].sort((one, other) => other[1] - one[1]).slice(0, 8);
  const named = read.map(([j, weight]) => [data.places[j][0], weight]);
  find("#reading").replaceChildren(
    make("h3", { textContent: `Layer ${chosen.layer}, head ${chosen.head}: “${shown(data.places[place][0])}” reads` }),
    named.length ? bars(named) : make("p", { textContent: "so many that no weight is large enough to be kept here" }));
}

// Choosing

const tokens = [...document.querySelectorAll("#text button")];

function choose(change) {
  Object.assign(chosen, change);
  tokens.forEach((token, place) => {
    token.setAttribute("aria-pressed", place === chosen.place);
    token.tabIndex = place === chosen.place ? 0 : -1;
  });
  showAlternatives();
  if (!attention) return;
  find("#layer").value = chosen.layer;
  find("#head").value = chosen.head;
  [...find("#heads").children].forEach((button, n) => {
    const here = n === chosen.layer * data.attention.heads + chosen.head;
    button.setAttribute("aria-checked", here);
    button.tabIndex = here ? 0 : -1;
  });
  [...find("#arcs ol").children].forEach((item, place) =>
    item.firstChild.setAttribute("aria-pressed", place === chosen.place));
  drawArcs();
  showReading();
}

tokens.forEach((token, place) => {
  token.onclick = token.onfocus = token.onpointerenter = () => choose({ place });
});
find("#text").onkeydown = (event) => {
  const last = tokens.length - 1;
  const to = { ArrowLeft: chosen.place - 1, ArrowRight: chosen.place + 1, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  tokens[Math.max(0, Math.min(last, to))].focus();
};
if (attention) {
  makeHeads();
  addEventListener("resize", drawArcs);
}
choose({});
