// Draws the document of this page: the stores of every environment as a graph, with their details.
//
// The document holds, for each environment, its stores in the order of the plan. All texts come from it as they are
// to be shown, secrets masked, and are only ever set as text. Nothing is fetched, and nothing is sent.
"use strict";

const page = JSON.parse(document.getElementById("document").textContent);
const UNLISTED = "*"; // the name of the default factory among the stores

const state = {
  environment: null, // the environment that is shown
  other: null, // the one that it is compared with
  selected: null, // the name of the store whose details are open
  zoom: null, // null until the reader has chosen one
};

const $ = (id) => document.getElementById(id);

/** An element with attributes, listeners (`onclick`) and children; null children are left out. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "rect", "text", "title", "defs", "marker"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((each) => each !== null));
  return element;
}

const label = (environment) => environment.name ?? "no environment";
const title = (name) => (name === UNLISTED ? "any other name" : name);
const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// ------------------------------------------------------------------ stores, and how those of two environments differ

/** The values that a store sets itself, those of its own middleware included, by path. */
function ownValues(store) {
  const own = new Map(store.values.map((each) => [each.path, each]));
  for (const link of store.chain.filter((each) => each.from === null)) {
    for (const each of link.values) own.set(`middleware.${each.path}`, each);
  }
  return own;
}

/** The differences of two versions of a store, either of which may be missing. */
function differences(store, before) {
  const now = store ? ownValues(store) : new Map();
  const then = before ? ownValues(before) : new Map();
  const found = [];
  for (const path of new Set([...then.keys(), ...now.keys()])) {
    const [from, to] = [then.get(path) ?? null, now.get(path) ?? null];
    if (from && to && from.same === to.same) continue;
    found.push({ path, from, to, mark: from === null ? "added" : to === null ? "removed" : "changed" });
  }
  return found;
}

function edgesOf(store) {
  const inherited = new Set(store.chain.filter((each) => each.from !== null).map((each) => each.kind));
  const edges = store.calls.map(({ kind, store: end }) => {
    return { start: store.name, end, kind: "calls", by: kind, inherited: inherited.has(kind) };
  });
  if (store.use !== null) edges.push({ start: store.name, end: store.use, kind: "use" });
  else if (store.parent !== null) edges.push({ start: store.parent, end: store.name, kind: "namespace" });
  return edges;
}

const key = (edge) => `${edge.kind} ${edge.start} ${edge.end}`;

/** The nodes and edges to draw: those of the environment, and, marked as removed, those that only the other one has. */
function combined(environment, other) {
  const before = other === null ? null : new Map(other.stores.map((each) => [each.name, each]));
  const nodes = new Map();
  for (const store of environment.stores) {
    const then = before?.get(store.name) ?? null;
    const changes = before === null ? [] : differences(store, then);
    const reinstated = store.kind !== then?.kind; // such as a default factory without any values
    const mark = before === null ? null : then === null ? "added" : changes.length || reinstated ? "changed" : null;
    nodes.set(store.name, { name: store.name, store, before: then, mark, changes });
  }
  for (const [name, then] of before ?? []) {
    if (nodes.has(name)) continue;
    nodes.set(name, { name, store: then, before: then, mark: "removed", changes: differences(null, then) });
  }
  const edges = new Map();
  const present = new Set(environment.stores.flatMap(edgesOf).map(key));
  const past = before === null ? null : new Set(other.stores.flatMap(edgesOf).map(key));
  for (const edge of [...environment.stores, ...(other?.stores ?? [])].flatMap(edgesOf)) {
    const mark = past === null || past.has(key(edge)) ? null : "added";
    if (!edges.has(key(edge))) edges.set(key(edge), { ...edge, mark: present.has(key(edge)) ? mark : "removed" });
  }
  return { nodes, edges: [...edges.values()] };
}

// ------------------------------------------------------------------ search and filters

/** Everything that a search looks at. */
function searchable({ store, before }) {
  const texts = [title(store.name), store.type, store.description, store.root, store.namespace.join(":"), store.kind];
  for (const each of store === before || before === null ? [store] : [store, before]) {
    for (const value of each.values) texts.push(value.path, value.value);
    for (const link of each.chain) texts.push(link.kind, link.settings);
    for (const call of each.calls) texts.push(call.store);
  }
  return texts.filter(Boolean).join("\n").toLowerCase();
}

/** The names of the nodes that match the search and the filters. */
function matching(nodes) {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [type, middleware] = [$("type").value, $("middleware").value];
  const found = new Set();
  for (const node of nodes.values()) {
    if (type && node.store.type !== type) continue;
    if (middleware && !node.store.chain.some((link) => link.kind === middleware)) continue;
    if (state.other !== null && $("changed").checked && node.mark === null) continue;
    if (words.length) {
      node.text ??= searchable(node);
      if (!words.every((word) => node.text.includes(word))) continue;
    }
    found.add(node.name);
  }
  return found;
}

// ------------------------------------------------------------------ where boxes go

const LINE = 18;
const PADDING = 10;
const GAP = 16; // between boxes; edges run through it
const INDENT = 48; // between a store and its namespaces
const MARKS = { added: "+", removed: "−", changed: "~" };
const MANY = 40; // calls, from which on they are fainter
const LONGEST = 44; // characters of a line; the details have all of it

const canvas = document.createElement("canvas").getContext("2d");
const widths = new Map();

function widthOf(text, bold) {
  const known = `${bold ? "b" : ""}${text}`;
  if (!widths.has(known)) {
    const font = getComputedStyle(document.documentElement).getPropertyValue("--mono");
    canvas.font = `${bold ? "bold " : ""}${font}`;
    widths.set(known, canvas.measureText(text).width);
  }
  return widths.get(known);
}

function shortened(text) {
  const letters = [...text];
  return letters.length > LONGEST ? `${letters.slice(0, LONGEST - 1).join("")}…` : text;
}

/** The lines of a box below the name. */
function linesOf(store) {
  if (store.kind === "forbid") return ["is an error (forbid)"];
  if (store.kind === "absent") return ["a hidden memory store,", "with a warning"];
  if (store.kind === "alias" || store.kind === "use") return [`the same store as ${store.use}`];
  const calls = new Map(store.calls.map((each) => [each.kind, each.store]));
  const chain = store.chain.map((link) => (calls.has(link.kind) ? `${link.kind} ${calls.get(link.kind)}` : link.kind));
  const typed = store.parent === null ? store.type : null;
  return [[typed, store.namespace.join(":")].filter(Boolean).join(" "), chain.join(" > ")].filter(Boolean);
}

function boxOf(node) {
  const lines = [title(node.name), ...linesOf(node.store)].map(shortened);
  const mark = node.mark === null ? 0 : 18;
  const width = Math.max(widthOf(lines[0], true) + mark, ...lines.slice(1).map((line) => widthOf(line, false)));
  return { node, lines, x: 0, y: 0, width: Math.ceil(width) + 2 * PADDING, height: lines.length * LINE + PADDING };
}

/** Rows and columns of boxes of one size, about as high as wide. */
function grid(boxes) {
  const width = Math.max(...boxes.map((box) => box.width));
  const height = Math.max(...boxes.map((box) => box.height));
  const ideal = Math.round(Math.sqrt((boxes.length * (height + GAP) * 1.2) / (width + GAP)));
  const columns = boxes.length > 6 ? Math.max(ideal, 1) : 1;
  boxes.forEach((box, at) => {
    box.column = at % columns;
    box.x = box.column * (width + GAP);
    box.y = Math.floor(at / columns) * (height + GAP);
    box.width = width;
  });
  const used = Math.min(columns, boxes.length);
  const block = { boxes, width: used * (width + GAP) - GAP };
  return { ...block, height: Math.ceil(boxes.length / columns) * (height + GAP) - GAP };
}

function shift(block, x, y) {
  for (const box of block.boxes) {
    box.x += x;
    box.y += y;
  }
}

/** Blocks one below another. */
function stack(blocks) {
  let height = 0;
  for (const block of blocks) {
    shift(block, 0, height);
    height += block.height + GAP;
  }
  const width = Math.max(0, ...blocks.map((block) => block.width));
  return { boxes: blocks.flatMap((block) => block.boxes), width, height: Math.max(0, height - GAP) };
}

/** Each store with all that hangs below it, to the right of it: blocks that do not overlap. */
function arranged(visible, nodes) {
  const below = new Map();
  const tops = [];
  const order = []; // each after the one it hangs on
  for (const name of visible) {
    const { store } = nodes.get(name);
    const above = store.use ?? store.parent;
    if (above !== null && visible.has(above)) below.set(above, [...(below.get(above) ?? []), name]);
    else tops.push(name);
  }
  for (const waiting = [...tops].reverse(); waiting.length; ) {
    const name = waiting.pop();
    order.push(name);
    waiting.push(...(below.get(name) ?? []));
  }
  const blocks = new Map();
  const together = (names) => {
    const single = names.filter((name) => !below.has(name)).map((name) => blocks.get(name).boxes[0]);
    const rest = names.filter((name) => below.has(name)).map((name) => blocks.get(name));
    return single.length ? [grid(single), ...rest] : rest;
  };
  for (const name of order.reverse()) {
    const box = boxOf(nodes.get(name));
    const block = { boxes: [box], width: box.width, height: box.height };
    if (below.has(name)) {
      const inner = stack(together(below.get(name)));
      shift(inner, box.width + INDENT, 0);
      block.boxes = [box, ...inner.boxes];
      block.width += INDENT + inner.width;
      block.height = Math.max(box.height, inner.height);
    }
    blocks.set(name, block);
  }
  return inColumns(together(tops));
}

/** Blocks in as many columns as make the whole about as wide as a screen. */
function inColumns(blocks) {
  const total = blocks.reduce((sum, block) => sum + block.height + 2 * GAP, 0);
  let best = null;
  for (let count = 1; count <= Math.min(blocks.length, 12); count += 1) {
    const columns = [[]];
    let filled = 0;
    for (const block of blocks) {
      if (filled && filled + block.height / 2 > total / count && columns.length < count) {
        columns.push([]);
        filled = 0;
      }
      columns.at(-1).push(block);
      filled += block.height + 2 * GAP;
    }
    const high = Math.max(...columns.map((each) => each.reduce((sum, block) => sum + block.height + 2 * GAP, 0)));
    const wide = columns.reduce((sum, each) => sum + Math.max(0, ...each.map((block) => block.width)) + INDENT, 0);
    const off = Math.abs(Math.log(wide / high / 1.8));
    if (best === null || off < best.off) best = { columns, off };
  }
  const boxes = [];
  let [x, height] = [0, 0];
  for (const column of best?.columns ?? []) {
    let y = 0;
    for (const block of column) {
      shift(block, x, y);
      y += block.height + 2 * GAP;
      boxes.push(...block.boxes);
    }
    x += Math.max(...column.map((block) => block.width)) + INDENT;
    height = Math.max(height, y);
  }
  return { boxes, width: Math.max(0, x - INDENT), height: Math.max(0, height - 2 * GAP) };
}

/** The path of an edge: along the gaps to what hangs on a store, in a curve behind the boxes to any other. */
function route(edge, start, end) {
  const [from, to] = edge.kind === "use" ? [end, start] : [start, end];
  const middle = (box) => box.y + Math.min(box.height / 2, 20);
  const above = to.node.store.use ?? to.node.store.parent;
  if (edge.kind !== "calls" && above === from.node.name) {
    const trunk = from.x + from.width + INDENT / 2;
    const out = `M${from.x + from.width} ${middle(from)}H${trunk}`;
    return to.column ? `${out}V${to.y - GAP / 2}H${to.x + 14}V${to.y}` : `${out}V${middle(to)}H${to.x}`;
  }
  const right = to.x >= from.x + from.width;
  const left = to.x + to.width <= from.x;
  const x1 = left ? from.x : from.x + from.width;
  const x2 = right ? to.x : to.x + to.width;
  const [y1, y2] = [middle(from), middle(to)];
  const bend = right || left ? (x1 + x2) / 2 : Math.max(x1, x2) + INDENT / 2;
  return `M${x1} ${y1}C${bend} ${y1} ${bend} ${y2} ${x2} ${y2}`;
}

// ------------------------------------------------------------------ drawing

let drawn = { nodes: new Map(), edges: [], boxes: new Map(), matches: new Set(), size: { width: 1, height: 1 } };

function draw() {
  const environment = page.environments[state.environment];
  const other = state.other === null ? null : page.environments[state.other];
  const { nodes, edges } = combined(environment, other);
  const matches = matching(nodes);
  const visible = new Set();
  for (const name of nodes.keys()) {
    for (let at = matches.has(name) ? name : null; at !== null && !visible.has(at); ) {
      visible.add(at); // what a match hangs on stays as its context
      const { store } = nodes.get(at);
      at = store.use ?? store.parent;
      if (at !== null && !nodes.has(at)) at = null;
    }
  }
  const inOrder = new Set([...nodes.keys()].filter((name) => visible.has(name)));
  const plan = arranged(inOrder, nodes);
  const boxes = new Map(plan.boxes.map((box) => [box.node.name, box]));
  const arrow = make("path", { d: "M0 0L8 4L0 8z", fill: "context-stroke" });
  const marker = { id: "arrow", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" };
  const definitions = make("defs", {}, make("marker", { ...marker, markerUnits: "userSpaceOnUse" }, arrow));
  const lines = edges.filter((edge) => boxes.has(edge.start) && boxes.has(edge.end));
  for (const edge of lines) {
    edge.element = make("path", {
      class: ["edge", edge.kind, edge.mark, edge.inherited && "inherited"].filter(Boolean).join(" "),
      d: route(edge, boxes.get(edge.start), boxes.get(edge.end)),
      "data-start": edge.start,
      "data-end": edge.end,
      "marker-end": edge.kind === "calls" ? "url(#arrow)" : null,
    });
  }
  for (const box of plan.boxes) box.element = drawBox(box, matches.has(box.node.name));
  const size = { width: plan.width + 2 * INDENT, height: plan.height + 2 * GAP };
  drawn = { nodes, boxes, matches, size, edges: lines };

  const svg = $("graph");
  const focused = svg.contains(document.activeElement) ? document.activeElement.dataset.store : null;
  svg.replaceChildren(definitions, ...[...lines, ...plan.boxes].map((each) => each.element));
  svg.setAttribute("viewBox", `${-GAP} ${-GAP} ${drawn.size.width} ${drawn.size.height}`);
  svg.classList.remove("emphasis");
  svg.classList.toggle("many", lines.filter((edge) => edge.kind === "calls" && !edge.inherited).length > MANY);
  scale();
  drawTable();
  markSelected();
  if (focused !== null) moveTo(focused);
  const all = [...nodes.keys()].filter((name) => name !== UNLISTED).length;
  const found = [...matches].filter((name) => name !== UNLISTED).length;
  $("count").value = found === all ? plural(all, "store") : `${found.toLocaleString("en")} of ${plural(all, "store")}`;
}

function drawBox(box, isMatch) {
  const { node, lines } = box;
  const { store } = node;
  const kind = ["root", "namespace", "alias"].includes(store.kind) ? store.kind : "unlisted";
  const spoken = { added: ", only here", removed: ", only in the other environment", changed: ", differs" };
  const element = make("g", {
    class: ["node", kind, node.mark, isMatch ? null : "context"].filter(Boolean).join(" "),
    transform: `translate(${box.x} ${box.y})`,
    role: "button",
    tabindex: -1,
    "aria-label": [title(node.name), ...linesOf(store)].join(", ") + (spoken[node.mark] ?? ""),
    "data-store": node.name,
  });
  element.append(make("rect", { width: box.width, height: box.height, rx: 6 }));
  lines.forEach((line, at) => {
    const place = { x: PADDING, y: PADDING / 2 + (at + 0.75) * LINE, class: at === 0 ? "name" : null };
    element.append(make("text", place, line));
  });
  if (node.mark) {
    const place = { class: "mark", x: box.width - PADDING - 8, y: PADDING / 2 + 0.75 * LINE };
    element.append(make("text", place, MARKS[node.mark]));
  }
  const full = [title(node.name), ...linesOf(store), store.description].filter(Boolean).join("\n");
  element.append(make("title", {}, full));
  return element;
}

/** Make the edges of one store stand out; null ends that. */
function emphasise(name) {
  const near = new Set([name]);
  $("graph").classList.toggle("emphasis", name !== null);
  for (const { element, start, end } of drawn.edges) {
    const on = start === name || end === name;
    element.classList.toggle("near", on);
    if (on) near.add(start).add(end);
  }
  for (const [each, box] of drawn.boxes) box.element.classList.toggle("near", near.has(each));
}

function fitting() {
  const view = $("view");
  return Math.min(view.clientWidth / drawn.size.width, view.clientHeight / drawn.size.height, 1);
}

function scale() {
  const start = Math.min(Math.max($("view").clientWidth / drawn.size.width, 0.75), 1);
  const zoom = state.zoom ?? start;
  $("graph").setAttribute("width", drawn.size.width * zoom);
  $("graph").setAttribute("height", drawn.size.height * zoom);
}

function zoomBy(factor) {
  const now = $("graph").width.baseVal.value / drawn.size.width;
  state.zoom = factor === null ? fitting() : Math.min(Math.max(now * factor, 0.1), 3);
  scale();
}

function drawTable() {
  const body = make("tbody");
  for (const [name, node] of drawn.nodes) {
    if (!drawn.matches.has(name)) continue;
    const { store } = node;
    const chain = store.chain.map((link) => `${link.kind} ${link.settings}`.trimEnd());
    const inside = store.parent === null ? linesOf(store).join(" ") : `in ${store.parent}`;
    body.append(
      make(
        "tr",
        { "data-row": name },
        make("td", {}, node.mark ? `${MARKS[node.mark]} ` : null, link(name)),
        make("td", {}, make("code", {}, store.namespace.join(":"))),
        make("td", {}, make("code", {}, store.root ?? inside)),
        make("td", {}, make("code", {}, chain.join(" > "))),
        make("td", {}, store.description),
      ),
    );
  }
  const names = ["store", "namespace", "backend", "chain, from the caller inwards", "description"];
  const head = make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name))));
  $("table").replaceChildren(make("caption", { hidden: true }, "All stores"), head, body);
}

// ------------------------------------------------------------------ details

/** A button that opens the details of another store. */
function link(name) {
  const known = drawn.nodes.has(name);
  return known ? make("button", { class: "link", onclick: () => select(name, true) }, title(name)) : title(name);
}

function valueRows(values, changes = new Map(), prefix = "") {
  const rows = [];
  for (const each of values) {
    const change = changes.get(prefix + each.path);
    const [first, ...shadowed] = each.places;
    rows.push(
      make(
        "tr",
        { class: change?.mark ?? null },
        make("td", { class: "path" }, each.path),
        make("td", { class: "value" }, each.value),
        make("td", { class: "place" }, first ? `${first.at}${layer(first)}` : "default"),
      ),
    );
    for (const lower of shadowed) {
      rows.push(
        make(
          "tr",
          { class: "shadowed" },
          make("td", { class: "path" }),
          make("td", { class: "value" }, lower.value),
          make("td", { class: "place" }, `${lower.at}${layer(lower)}, shadowed`),
        ),
      );
    }
  }
  return rows;
}

const layer = (place) => (place.layer === "file" ? "" : ` (${place.layer})`);

const inherited = (each) => (each.from === null ? [] : [", inherited from ", link(each.from)]);

const listed = (rows) => make("table", {}, make("tbody", {}, ...rows));

function section(heading, ...content) {
  return make("section", {}, make("h3", {}, heading), ...content);
}

function describe(store) {
  const of = (name) => [link(name)];
  if (store.kind === "forbid") return ["any other name is an error"];
  if (store.kind === "absent") return ["any other name gets a namespace of a hidden memory store, with a warning"];
  if (store.kind === "use") return ["any other name gets the store ", ...of(store.use)];
  if (store.kind === "alias") return ["another name for ", ...of(store.use)];
  const what = store.kind === "factory" ? "any other name gets a namespace of " : "namespace of ";
  if (store.parent !== null) return [what, ...of(store.parent)];
  return [store.kind === "factory" ? "any other name gets a namespace of a hidden root: " : "root: ", store.root];
}

function showDetails() {
  const panel = $("details");
  const node = drawn.nodes.get(state.selected);
  panel.hidden = node === undefined;
  if (node === undefined) return;
  const { store, changes } = node;
  const close = make("button", { class: "close", title: "close (Esc)", onclick: () => select(null) }, "×");
  const parts = [close, make("h2", {}, title(node.name)), make("p", {}, ...describe(store))];
  if (store.description) parts.push(make("p", {}, store.description));
  if (store.namespace.length) parts.push(make("p", {}, "namespace ", make("code", {}, store.namespace.join(":"))));
  const byPath = new Map(changes.map((each) => [each.path, each]));
  if (state.other !== null) parts.push(compared(node));
  if (store.values.length) {
    parts.push(section("Settings", listed(valueRows(store.values, byPath))));
  }
  if (store.chain.length) {
    const links = store.chain.flatMap((each) => [
      make("p", {}, make("b", {}, each.kind), ` ${each.settings}`, ...inherited(each)),
      listed(valueRows(each.values, each.from === null ? byPath : new Map(), "middleware.")),
    ]);
    parts.push(section("Chain, from the caller inwards", ...links));
  }
  const related = (edges, name) =>
    edges.flatMap((edge, at) => [at ? ", " : "", link(edge[name]), edge.by ? ` (${edge.by})` : ""]);
  const present = drawn.edges.filter((edge) => edge.mark !== "removed");
  const from = (kind) => present.filter((edge) => edge.kind === kind && edge.start === node.name);
  const to = (kind) => present.filter((edge) => edge.kind === kind && edge.end === node.name);
  const lists = {
    "Calls": related(from("calls"), "end"),
    "Called by": related(to("calls"), "start"),
    "Namespaces": related(from("namespace"), "end"),
    "Other names": related(to("use"), "start"),
  };
  for (const [heading, links] of Object.entries(lists)) {
    if (links.length) parts.push(section(heading, make("p", {}, ...links)));
  }
  panel.replaceChildren(...parts);
  panel.scrollTop = 0;
}

/** What differs from the other environment. */
function compared(node) {
  const [here, there] = [state.environment, state.other].map((at) => label(page.environments[at]));
  const texts = { added: `only in ${here}`, removed: `only in ${there}` };
  const rows = node.changes.map(({ path, from, to, mark }) => {
    const values = [from?.value, to?.value].filter((each) => each !== undefined);
    const masked = values[0] === values[1] ? " (they differ)" : "";
    return make(
      "tr",
      { class: mark },
      make("td", { class: "path" }, path),
      make("td", { class: "value" }, values.join(" → ") + masked),
      make("td", { class: "place" }, [from, to].map((each) => each?.places[0]?.at).filter(Boolean).join(" → ")),
    );
  });
  const first = texts[node.mark] ?? (node.mark === null ? "no difference in its own settings" : null);
  const table = rows.length ? listed(rows) : null;
  return section(`${there} → ${here}`, first === null ? null : make("p", {}, first), table);
}

/** Open the details of a store, null: close them. */
function select(name, reveal = false) {
  const last = state.selected;
  state.selected = name;
  if (reveal && name !== null && !drawn.boxes.has(name)) clearFilters();
  markSelected();
  showDetails();
  remember();
  if (name === null) drawn.boxes.get(last)?.element.focus({ preventScroll: true });
  else if (reveal) moveTo(name);
}

function markSelected() {
  const current = drawn.boxes.has(state.selected) ? state.selected : drawn.boxes.keys().next().value;
  for (const [name, box] of drawn.boxes) {
    box.element.classList.toggle("selected", name === state.selected);
    box.element.setAttribute("tabindex", name === current ? 0 : -1); // one stop for the tabulator
  }
}

/** Put the keyboard's focus on a node of the graph. */
function moveTo(name) {
  const box = drawn.boxes.get(name);
  if (box === undefined) return;
  for (const each of drawn.boxes.values()) each.element.setAttribute("tabindex", -1);
  box.element.setAttribute("tabindex", 0);
  box.element.focus({ preventScroll: true });
  box.element.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** The node that an arrow key leads to: left what a store hangs on, right what hangs on it, else the nearest there. */
function neighbour(name, [dx, dy]) {
  const above = (store) => store.use ?? store.parent;
  const up = above(drawn.nodes.get(name).store);
  if (dx < 0 && drawn.boxes.has(up)) return up;
  const below = dx > 0 ? [...drawn.boxes.values()].find((box) => above(box.node.store) === name) : undefined;
  if (below !== undefined) return below.node.name;
  const centre = (box) => [box.x + box.width / 2, box.y + box.height / 2];
  const [x, y] = centre(drawn.boxes.get(name));
  let best = null;
  for (const [other, box] of drawn.boxes) {
    const [ox, oy] = centre(box);
    const ahead = (ox - x) * dx + (oy - y) * dy;
    const aside = Math.abs((ox - x) * dy) + Math.abs((oy - y) * dx);
    if (other === name || ahead <= 1 || (dy !== 0 && aside > box.width)) continue;
    const far = ahead + 3 * aside;
    if (best === null || far < best.far) best = { name: other, far };
  }
  return best?.name ?? null;
}

// ------------------------------------------------------------------ controls

function options(select, first, entries) {
  const chosen = select.value;
  select.replaceChildren(...[["", first], ...entries].map(([value, text]) => make("option", { value }, text)));
  select.value = entries.some(([value]) => value === chosen) ? chosen : "";
}

const INCOMPLETE =
  "Of values whose variables or secret files were missing when this page was made, the text in the file is shown.";

function showEnvironment(at) {
  state.environment = at;
  if (state.other === at) state.other = null;
  const environment = page.environments[at];
  document.title = `${label(environment)}: ${environment.files}`;
  $("title").textContent = label(environment);
  $("files").textContent = environment.files;
  for (const input of $("environments").querySelectorAll("input")) input.checked = Number(input.value) === at;
  const others = page.environments
    .map((each, number) => [String(number), label(each)])
    .filter((_, number) => number !== at && !page.environments[number].problems.length);
  options($("compare"), "nothing", others);
  $("compare").value = state.other === null ? "" : String(state.other);
  $("compare").parentElement.hidden = page.environments.length < 2;
  const note = $("note");
  note.classList.toggle("invalid", environment.problems.length > 0);
  const problems = environment.problems.map((each) => `${each.code}  ${each.at}  ${each.message}`);
  if (problems.length) note.textContent = [`${label(environment)} is not valid:`, ...problems].join("\n");
  else note.textContent = environment.incomplete ? INCOMPLETE : "";
  note.hidden = note.textContent === "";
  refresh();
}

/** Everything that depends on the environments. */
function refresh() {
  $("only").hidden = state.other === null;
  const shown = [state.environment, state.other].filter((at) => at !== null);
  const stores = shown.flatMap((at) => page.environments[at].stores);
  const sorted = (names) => [...new Set(names)].filter(Boolean).sort().map((name) => [name, name]);
  options($("type"), "all", sorted(stores.map((each) => each.type)));
  options($("middleware"), "all", sorted(stores.flatMap((each) => each.chain.map((link) => link.kind))));
  draw();
  drawLegend();
  showDetails();
  remember();
}

function drawLegend() {
  const line = (kind, text) => {
    const stroke = make("path", { class: `edge ${kind}`, d: "M0 5H34" });
    return make("span", {}, make("svg", { viewBox: "0 0 34 10", "aria-hidden": "true" }, stroke), ` ${text}`);
  };
  const calls = drawn.edges.some((edge) => edge.kind === "calls");
  $("legend").replaceChildren(
    line("namespace", "a namespace"),
    line("use", "another name for the same store"),
    ...(calls ? [line("calls", "a store that middleware calls")] : []),
    ...(state.other === null ? [] : [
      line("added", `+ only in ${label(page.environments[state.environment])}`),
      line("removed", `− only in ${label(page.environments[state.other])}`),
      make("span", {}, "~ settings differ"),
    ]),
  );
}

function clearFilters() {
  for (const id of ["search", "type", "middleware"]) $(id).value = "";
  $("changed").checked = false;
  draw();
}

/** Keep what is shown in the address, so that it can be passed on. */
function remember() {
  const parts = new URLSearchParams();
  const name = (at) => page.environments[at].name ?? "";
  if (page.environments.length > 1) parts.set("env", name(state.environment));
  if (state.other !== null) parts.set("compare", name(state.other));
  if (state.selected !== null) parts.set("store", state.selected);
  const hash = `#${parts}`;
  if (location.hash !== hash && (hash !== "#" || location.hash)) history.replaceState(null, "", hash);
}

/** Show what the address names; anything unknown in it is ignored. */
function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const at = (name) => page.environments.findIndex((each) => name !== null && (each.name ?? "") === name);
  const chosen = page.environments.findIndex((each) => each.name === page.chosen);
  const other = at(parts.get("compare"));
  const environment = at(parts.get("env"));
  state.other = other >= 0 && !page.environments[other].problems.length ? other : null;
  state.selected = parts.get("store");
  showEnvironment(environment >= 0 ? environment : Math.max(chosen, 0));
  if (state.selected !== null) moveTo(state.selected);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "light" : "dark";
}

function themes() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const asSystem = () => setTheme(system.matches ? "dark" : "light");
  let chosen = null;
  try {
    chosen = localStorage.getItem("storeconf-theme");
  } catch {
    // Some browsers keep nothing for local files.
  }
  if (chosen === "dark" || chosen === "light") setTheme(chosen);
  else asSystem();
  system.addEventListener("change", () => chosen ?? asSystem());
  $("theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    setTheme(chosen);
    try {
      localStorage.setItem("storeconf-theme", chosen);
    } catch {
      // As above: it then applies until the page is closed.
    }
  });
}

const ARROWS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches('input[type="search"], select');
  const name = event.target.closest?.(".node")?.dataset.store;
  if (event.key === "Escape") {
    if (event.target === $("search") && $("search").value) {
      clearFilters();
    } else if (state.selected !== null) {
      select(null);
    } else {
      emphasise(null);
      return;
    }
  } else if (event.target === $("search") && event.key === "Enter") {
    const first = [...drawn.boxes.keys()].find((each) => drawn.matches.has(each));
    if (first !== undefined) select(first, true);
  } else if (typing) {
    return;
  } else if (event.key === "/") {
    $("search").select();
  } else if (event.key === "e" && page.environments.length > 1) {
    showEnvironment((state.environment + 1) % page.environments.length);
  } else if (event.key === "+" || event.key === "-") {
    zoomBy(event.key === "+" ? 1.25 : 0.8);
  } else if (event.key === "0") {
    zoomBy(null);
  } else if (name !== undefined && (event.key === "Enter" || event.key === " ")) {
    select(name);
  } else if (name !== undefined && event.key in ARROWS) {
    const next = neighbour(name, ARROWS[event.key]);
    if (next !== null) moveTo(next);
  } else {
    return;
  }
  event.preventDefault();
}

/** Move the graph by dragging its background. */
function dragging() {
  const view = $("view");
  let from = null;
  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType !== "mouse" || event.target.closest(".node")) return;
    from = { x: event.clientX + view.scrollLeft, y: event.clientY + view.scrollTop };
    view.classList.add("dragged");
    view.setPointerCapture(event.pointerId);
  });
  view.addEventListener("pointermove", (event) => {
    if (from !== null) view.scrollTo(from.x - event.clientX, from.y - event.clientY);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    view.addEventListener(kind, () => {
      from = null;
      view.classList.remove("dragged");
    });
  }
}

function start() {
  themes();
  $("made_by").textContent = `Made by ${page.made_by}.`;
  page.environments.forEach((each, at) => {
    const invalid = each.problems.length > 0;
    const input = make("input", { type: "radio", name: "environment", value: at, onchange: () => showEnvironment(at) });
    const about = invalid ? `${plural(each.problems.length, "problem")}` : null;
    $("environments").append(make("label", { class: invalid ? "invalid" : null, title: about }, input, label(each)));
  });
  $("environments").hidden = page.environments.length < 2;
  $("compare").addEventListener("change", (event) => {
    state.other = event.target.value === "" ? null : Number(event.target.value);
    refresh();
  });
  for (const id of ["search", "type", "middleware", "changed"]) $(id).addEventListener("input", draw);
  $("smaller").addEventListener("click", () => zoomBy(0.8));
  $("larger").addEventListener("click", () => zoomBy(1.25));
  $("fit").addEventListener("click", () => zoomBy(null));
  const graph = $("graph");
  const nodeOf = (event) => event.target.closest?.(".node")?.dataset.store ?? null;
  graph.addEventListener("click", (event) => nodeOf(event) !== null && select(nodeOf(event)));
  graph.addEventListener("pointerover", (event) => emphasise(nodeOf(event)));
  graph.addEventListener("pointerleave", () => emphasise(null));
  graph.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && emphasise(nodeOf(event)));
  graph.addEventListener("focusout", () => emphasise(null));
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", recall);
  window.addEventListener("resize", () => state.zoom ?? scale());
  dragging();
  recall();
}

start();
