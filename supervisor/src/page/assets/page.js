// Draws the node from /api/state. Text of others only ever becomes text: nothing here makes markup of it.
"use strict";

const EVERY = 2000;
const KEPT = 150;
const SHOWN = 300;
const SVG = "http://www.w3.org/2000/svg";

const element = (id) => document.getElementById(id);
const history = { cpu: [], memory: [] };
const pods = new Map();
let last = null;

function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1000 || unit === "TiB") return (unit === "B" || value >= 100 ? value.toFixed(0) : value.toFixed(1)) + " " + unit;
    value /= 1024;
  }
}

function age(millis) {
  const seconds = Math.max(0, Math.round(millis / 1000));
  if (seconds < 120) return seconds + "s";
  if (seconds < 7200) return Math.floor(seconds / 60) + "m";
  if (seconds < 172800) return Math.floor(seconds / 3600) + "h";
  return Math.floor(seconds / 86400) + "d";
}

function keep(list, value) {
  list.push(value);
  if (list.length > KEPT) list.shift();
}

function plot(svg, kind, values, most, width, height) {
  const step = width / (KEPT - 1);
  const first = width - (values.length - 1) * step;
  const top = Math.max(most, ...values) || 1;
  const points = values.map((value, index) => `${(first + index * step).toFixed(1)},${(height - (value / top) * (height - 2) - 1).toFixed(1)}`);
  let [area, line] = svg.children;
  if (!line) {
    area = svg.appendChild(document.createElementNS(SVG, "polygon"));
    line = svg.appendChild(document.createElementNS(SVG, "polyline"));
    area.setAttribute("class", "area " + kind);
    line.setAttribute("class", "line " + kind);
  }
  line.setAttribute("points", points.join(" "));
  area.setAttribute("points", points.length ? `${first.toFixed(1)},${height} ${points.join(" ")} ${width},${height}` : "");
}

function small() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  return svg;
}

// What is known of a pod from one look to the next: its row, and what it used.
function known(key) {
  let pod = pods.get(key);
  if (!pod) {
    const row = document.createElement("tr");
    const cells = Array.from({ length: 11 }, () => row.appendChild(document.createElement("td")));
    for (const index of [3, 4, 7, 9]) cells[index].className = "number";
    for (const index of [8, 10]) cells[index].className = "small";
    cells[0].className = "name";
    pod = { row, cells, cpu: [], memory: [], before: null };
    pod.cpuPlot = cells[8].appendChild(small());
    pod.memoryPlot = cells[10].appendChild(small());
    pods.set(key, pod);
  }
  return pod;
}

function use(pod, told) {
  let share = 0;
  if (told.looked !== null && pod.before && told.looked > pod.before.looked) {
    share = Math.max(0, told.cpu - pod.before.cpu) / (told.looked - pod.before.looked);
  } else if (pod.before && told.looked === pod.before.looked && pod.cpu.length) {
    share = pod.cpu[pod.cpu.length - 1];
  }
  pod.before = told.looked === null ? null : { looked: told.looked, cpu: told.cpu };
  keep(pod.cpu, share);
  keep(pod.memory, told.memory);
  return share;
}

function show(pod, told, share, now) {
  const bad = !["Running", "Completed", "Pending", "Stopped", "Terminating"].includes(told.status) && !told.status.startsWith("Init:0");
  const texts = [
    told.namespace === "default" ? told.name : told.namespace + "/" + told.name,
    told.ready.join("/"), told.status, told.restarts, told.started === null ? "-" : age(now - told.started),
    told.addresses[0] ?? "-", told.images[0] ?? "-", (share * 100).toFixed(1) + " %", null, size(told.memory), null,
  ];
  texts.forEach((text, index) => { if (text !== null) pod.cells[index].textContent = text; });
  pod.cells[2].className = bad ? "bad" : told.status === "Running" && told.ready[0] === told.ready[1] ? "good" : "";
  if (told.why === null) pod.cells[2].removeAttribute("title");
  else pod.cells[2].title = told.why;
  pod.cells[6].title = told.images.join("\n");
  plot(pod.cpuPlot, "cpu", pod.cpu, 0.05, 100, 20);
  plot(pod.memoryPlot, "memory", pod.memory, told.memoryLimit ?? 0, 100, 20);
}

function draw(state) {
  const { node } = state;
  document.title = "flint: " + node.hostname;
  element("hostname").textContent = node.hostname;
  element("facts").textContent = `flintd ${node.version}` + (node.started === null ? "" : `, up ${age(state.at - node.started)}`)
    + ` · ${node.kernel} ${node.architecture} · ${node.milliCpus / 1000} CPUs, ${size(node.memory)}`;
  element("trouble").textContent = Object.entries(node.conditions)
    .filter(([name, [holds]]) => holds !== (name === "Ready")).map(([name, [, why]]) => `${name}: ${why}`).join(" · ");
  const words = element("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [];
  const here = new Set();
  let [cpu, memory, matching] = [0, 0, 0];
  for (const told of state.pods) {
    const key = told.namespace + "/" + told.name;
    here.add(key);
    const pod = known(key);
    const share = use(pod, told);
    cpu += share;
    memory += told.memory;
    const text = [key, told.status, ...told.images].join(" ").toLowerCase();
    if (!words.every((word) => text.includes(word))) continue;
    matching += 1;
    if (rows.length < SHOWN) {
      show(pod, told, share, state.at);
      rows.push(pod.row);
    }
  }
  for (const key of pods.keys()) if (!here.has(key)) pods.delete(key);
  element("pods").replaceChildren(...rows);
  element("count").textContent = `${matching} of ${state.pods.length}`;
  element("more").textContent = matching > rows.length ? `${matching - rows.length} more: say which above` : "";
  keep(history.cpu, cpu);
  keep(history.memory, memory);
  plot(element("cpu-plot"), "cpu", history.cpu, node.milliCpus / 1000, 300, 80);
  plot(element("memory-plot"), "memory", history.memory, node.memory, 300, 80);
  element("cpu-now").textContent = `${(cpu * 100).toFixed(1)} % of ${node.milliCpus / 10} %`;
  element("memory-now").textContent = `${size(memory)} of ${size(node.memory)}`;
  element("events").replaceChildren(...state.events.map(event));
}

function event(told) {
  const row = document.createElement("tr");
  const texts = [new Date(told.at).toISOString().slice(0, 19).replace("T", " "), told.word, told.whose, told.sentence];
  for (const text of texts) row.appendChild(document.createElement("td")).textContent = text;
  row.children[0].className = "dim";
  if (told.isWarning) row.children[1].className = "bad";
  return row;
}

async function look() {
  try {
    const response = await fetch("/api/state");
    if (!response.ok) throw new Error(`flintd answers ${response.status}`);
    last = await response.json();
    draw(last);
  } catch (error) {
    element("trouble").textContent = `flintd does not answer: ${error.message}`;
  }
}

element("filter").addEventListener("input", () => { if (last) draw(last); });
// Nobody looks at a hidden page: then the node is left alone.
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
setInterval(() => { if (!document.hidden) look(); }, EVERY);
look();
