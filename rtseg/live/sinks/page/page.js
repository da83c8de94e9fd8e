// The live page: asks for the numbers once a second and sends what the buttons want. All text goes in as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const KEPT = 120;
const ages = [];
let colors = {};
let wanted = { view: "overlay", alpha: 0.5, legend: false, paused: false };
let picturesFailed = 0;

const ask = async (path, body) => {
  const options = { signal: AbortSignal.timeout(4000), cache: "no-store" };
  if (body !== undefined) {
    Object.assign(options, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  }
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
};

const number = (value, digits = 0) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

function showState(kind, text) {
  $("state").className = `state ${kind}`;
  $("state").textContent = text;
}

function showNumbers(stats) {
  const now = stats.now ?? {};
  $("what").textContent = [stats.input, stats.model, stats.backend && `${stats.backend} ${stats.precision ?? ""}`, stats.device]
    .filter(Boolean).join(" · ");
  $("shown").textContent = number(now.shown_fps, 1);
  $("captured").textContent = number(now.capture_fps, 1);
  const age = now.shown_fps ? now.age_ms : undefined;  // what is not shown has no age
  $("age50").textContent = number(age?.p50);
  $("age99").textContent = number(age?.p99);
  $("engine").textContent = number(now.engine_ms, 1);
  $("dropped").textContent = number(now.dropped);
  $("limit").textContent = now.bottleneck ? `Limited by: ${now.bottleneck}` : "";
  if (age) {
    ages.push([age.p50, age.p99]);
    ages.splice(0, ages.length - KEPT);
  }
  showChart();
  showClasses(now.classes ?? {});
  const disconnects = stats.disconnects ?? {};
  const lost = (stats.items ?? []).filter((item) => item.disconnects?.connected === false).map((item) => item.camera);
  if (disconnects.connected === false) showState("lost", "camera lost, trying again");
  else if (wanted.paused) showState("paused", "paused");
  else if (!("now" in stats)) showState("waiting", "waiting for the first numbers");
  else if (lost.length) showState("lost", `live, ${lost.join(" and ")} lost`);
  else showState("live", disconnects.count ? `live, ${disconnects.count} disconnect${disconnects.count > 1 ? "s" : ""} so far` : "live");
}

function showChart() {
  const top = Math.max(50, ...ages.map((pair) => pair[1])) * 1.1;
  const points = (column) => ages.map((pair, i) =>
    `${(240 * (i + KEPT - ages.length) / (KEPT - 1)).toFixed(1)},${(56 - 54 * pair[column] / top).toFixed(1)}`).join(" ");
  $("line50").setAttribute("points", points(0));
  $("line99").setAttribute("points", points(1));
  $("chart-top").textContent = ages.length ? `top ${number(top)} ms` : "";
}

const rows = new Map();
function showClasses(shares) {
  const list = Object.entries(shares).filter(([, share]) => share >= 0.0005).sort((a, b) => b[1] - a[1]);
  for (const [name, row] of rows) {
    if (!list.some(([kept]) => kept === name)) { row.remove(); rows.delete(name); }
  }
  for (const [name, share] of list) {
    if (!rows.has(name)) rows.set(name, makeRow(name));
    const row = rows.get(name);
    row.querySelector("rect.fill").setAttribute("width", `${100 * share}`);
    row.querySelector(".share").textContent = `${(100 * share).toFixed(1)} %`;
    $("classes").append(row);
  }
}

function makeRow(name) {
  const row = document.createElement("li");
  const color = colors[name] ?? "#7d8896";
  const span = (kind, text) => { const s = document.createElement("span"); s.className = kind; s.textContent = text; return s; };
  const svg = (tag, set) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(set)) e.setAttribute(key, value);
    return e;
  };
  const swatch = svg("svg", { class: "swatch", viewBox: "0 0 1 1" });
  swatch.append(svg("rect", { width: 1, height: 1, fill: color }));
  const bar = span("bar", "");
  const fill = svg("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none" });
  fill.append(svg("rect", { class: "fill", height: 1, width: 0, fill: color }));
  bar.append(fill);
  row.append(swatch, span("name", name), bar, span("share", ""));
  return row;
}

function showWanted(controls) {
  wanted = controls;
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-checked", String(button.dataset.view === wanted.view));
  }
  if (document.activeElement !== $("alpha") || !dragging) $("alpha").value = wanted.alpha;
  $("alpha-value").textContent = `${Math.round(100 * wanted.alpha)} %`;
  $("alpha").disabled = wanted.view === "mask";
  $("legend").setAttribute("aria-pressed", String(wanted.legend));
  $("pause").setAttribute("aria-pressed", String(wanted.paused));
  $("pause").textContent = wanted.paused ? "Go on" : "Pause";
}

async function want(change) {
  try { showWanted(await ask("controls", change)); } catch { showState("lost", "rtseg does not answer"); }
}

function startPicture() {
  $("picture").src = `stream.mjpg?${Date.now()}`;
}

async function everySecond() {
  try {
    const [stats, controls] = await Promise.all([ask("stats"), ask("controls")]);
    if (picturesFailed) { picturesFailed = 0; $("hint").hidden = true; startPicture(); }
    showWanted(controls);
    showNumbers(stats);
  } catch {
    picturesFailed += 1;
    showState("lost", "rtseg does not answer");
    $("hint").textContent = "rtseg has ended or can't be reached";
    $("hint").hidden = picturesFailed < 3;
  }
  setTimeout(everySecond, 1000);
}

let dragging = false;
for (const button of document.querySelectorAll("[data-view]")) button.onclick = () => want({ view: button.dataset.view });
$("alpha").oninput = () => { dragging = true; $("alpha-value").textContent = `${Math.round(100 * $("alpha").value)} %`; want({ alpha: Number($("alpha").value) }); };
$("alpha").onchange = () => { dragging = false; };
$("legend").onclick = () => want({ legend: !wanted.legend });
$("pause").onclick = () => want({ paused: !wanted.paused });
$("full").onclick = () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen());
$("snapshot").onclick = () => {
  const link = document.createElement("a");
  link.href = "snapshot.png";
  link.download = `rtseg-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.png`;
  link.click();
};
$("picture").onerror = () => { picturesFailed += 1; };
const VIEWS = ["overlay", "mask", "side-by-side"];
const step = (by) => want({ alpha: Math.min(1, Math.max(0, Math.round(10 * wanted.alpha + by) / 10)) });
const KEYS = {
  m: () => want({ view: VIEWS[(VIEWS.indexOf(wanted.view) + 1) % VIEWS.length] }),
  l: () => $("legend").click(), " ": () => $("pause").click(), s: () => $("snapshot").click(), f: () => $("full").click(),
  "+": () => step(1), "-": () => step(-1),
};
document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "BUTTON"].includes(event.target.tagName)) return;
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
};
ask("about").then((about) => { colors = about.colors; }).catch(() => {}).finally(() => { startPicture(); everySecond(); });
