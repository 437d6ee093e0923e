"use strict";
// The live view of the engine: what the server says at /live, once a second.

let live = null;  // the last answer

function row(cells) {
  return appendAll(element("tr"), cells.map((cell, i) => element(i ? "td" : "th", i ? {} : {scope: "row"}, cell)));
}

// --- tokens per second ---

function shape(tag, attributes, text) {
  const node = document.createElementNS($("history").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text ?? "";
  return node;
}

// The least of 1, 2, 5, 10, 20 and so on that is not below `most`.
function roundUp(most) {
  const decade = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [1, 2, 5, 10].map(digit => digit * decade).find(value => value >= most);
}

// `counts` are the tokens of each of the last seconds. The axes are there from the beginning, whatever has come.
function drawHistory(counts) {
  const width = $("history").clientWidth, left = 44, right = width - 12, top = 12, bottom = 126;
  const most = roundUp(Math.max(10, ...counts));
  const x = i => left + (right - left) * i / (counts.length - 1), y = count => bottom - (bottom - top) * count / most;
  const parts = [];
  for (const tick of [0, most / 2, most]) {
    parts.push(shape("line", {class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick)}));
    parts.push(shape("text", {x: left - 6, y: y(tick) + 4, "text-anchor": "end"}, number.format(tick)));
  }
  for (const [seconds, label] of [[120, "2 min ago"], [90, ""], [60, "1 min ago"], [30, ""], [0, "now"]]) {
    const at = right - (right - left) * seconds / 120;
    parts.push(shape("line", {class: "grid", x1: at, x2: at, y1: bottom, y2: bottom + 5}));
    const anchor = {120: "start", 0: "end"}[seconds] ?? "middle";
    parts.push(shape("text", {x: at, y: bottom + 18, "text-anchor": anchor}, label));
  }
  const line = counts.map((count, i) => `${x(i).toFixed(1)},${y(count).toFixed(1)}`).join(" ");
  parts.push(shape("polygon", {class: "area", points: `${left},${bottom} ${line} ${right},${bottom}`}));
  parts.push(shape("polyline", {class: "line", points: line}));
  $("history").replaceChildren(...parts);
  const said = `Output tokens per second: now ${counts.at(-1)}, at most ${Math.max(...counts)}`;
  $("history").setAttribute("aria-label", said);
}

// --- load of the experts ---

const widest = rows => Math.max(0, ...rows.map(layer => layer.length));
const rowHeight = rows => Math.min(14, Math.max(3, 220 / rows.length));

function drawLoad(rows) {
  const canvas = $("load"), ratio = window.devicePixelRatio || 1, experts = widest(rows);
  if (!experts) return;
  const height = Math.max(60, rowHeight(rows) * rows.length);
  canvas.style.height = height + "px";
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d"), hot = getComputedStyle(canvas).getPropertyValue("--hot");
  const w = canvas.width / experts, h = canvas.height / rows.length, gap = w > 4 && h > 4 ? 1 : 0;
  let worst = [0, 0, 0];
  rows.forEach((layer, l) => {
    const mean = layer.reduce((a, b) => a + b, 0) / layer.length || 1;
    layer.forEach((count, e) => {
      if (count / mean > worst[0]) worst = [count / mean, l, e];
      pen.fillStyle = `rgba(${hot}, ${Math.min(1, .06 + .94 * count / mean / 3)})`;
      pen.fillRect(e * w, l * h, w - gap, h - gap);
    });
  });
  ends($("layers"), "layer", rows.length);
  ends($("experts"), "expert", experts);
  if (!worst[0]) return;
  const note = `Fullest: expert ${worst[2]} of layer ${worst[1]} with ${number.format(worst[0])} times its layer's mean.`;
  say($("load-note"), note);
  canvas.setAttribute("aria-label", "Expert load. " + note);
}

// An axis says its name, the first and the last index.
function ends(axis, name, length) {
  if (axis.dataset.length == length) return;
  axis.dataset.length = length;
  const texts = length > 1 ? ["0", name, String(length - 1)] : ["0", name];
  axis.replaceChildren(...texts.map(text => element("span", {}, text)));
}

// Says which expert is under the pointer.
function pointAt(event) {
  const rows = live?.expert_rows ?? [], box = $("load").getBoundingClientRect();
  const layer = Math.floor((event.clientY - box.top) / box.height * rows.length);
  const expert = Math.floor((event.clientX - box.left) / box.width * widest(rows));
  const count = rows[layer]?.[expert];
  $("load").title = count === undefined ? "" : `layer ${layer}, expert ${expert}: ${several(count, "row")}`;
}

// --- all of it ---

function drawTiles() {
  const percent = share => number.format(100 * share) + " %";
  const tiles = {
    "Running": live.running, "Waiting": live.waiting, "In flight": live.in_flight, "KV in use": percent(live.kv_usage),
    "Prefix hits": percent(live.prefix_hit_rate), "Preemptions": live.preemptions, "Restarts": live.restarts,
    "Output tokens": number.format(live.generation_tokens), "Local activation": percent(live.local_activation_rate)};
  $("tiles").replaceChildren(...Object.entries(tiles).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
}

function showLive() {
  $("model").textContent = live.model;
  const state = `${several(live.ranks, "rank")}, plan ${live.plan}, context ${live.context}`;
  say($("state"), live.up ? state : "the ranks are starting");
  $("state").className = live.up ? "" : "down";
  if (live.needs_key) askForKey();
  if (!live.chat && !$("mode").options[0].disabled) {
    $("mode").options[0].disabled = true;
    if (!conversation.messages.length) setMode("complete");
  }
  drawTiles();
  drawHistory(live.tokens_by_second);
  drawLoad(live.expert_rows);
  $("latencies").replaceChildren(...Object.entries(live.latencies_ms).map(([name, values]) =>
    row([name, ...values.map(value => number.format(value))])));
  $("collectives").replaceChildren(...Object.entries(live.collectives).map(([name, c]) =>
    row([name, number.format(c.calls), bytes(c.bytes), number.format(c.seconds), number.format(c.waiting_seconds)])));
}

async function refresh() {
  try {
    live = await (await fetch("live")).json();
    showLive();
  } catch {
    say($("state"), "the server does not answer");
    $("state").className = "down";
  }
  setTimeout(refresh, document.hidden ? 5000 : 1000);
}
