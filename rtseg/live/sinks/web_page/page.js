// Live page: polls the metrics once per second and sends the settings of the controls. Text is set as textContent, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const HISTORY_SECONDS = 120;
const ages = [];
let colors = {};
let settings = { view: "overlay", alpha: 0.5, legend: false, paused: false };
let failures = 0;

const request = async (path, body) => {
  const options = { signal: AbortSignal.timeout(4000), cache: "no-store" };
  if (body !== undefined) {
    Object.assign(options, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  }
  const response = await fetch(path, options);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
};

const formatNumber = (value, digits = 0) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

function showState(kind, text) {
  $("state").className = `state ${kind}`;
  $("state").textContent = text;
}

function showMetrics(stats) {
  const now = stats.now ?? {};
  $("run-info").textContent = [stats.input, stats.model, stats.backend && `${stats.backend} ${stats.precision ?? ""}`, stats.device]
    .filter(Boolean).join(" · ");
  $("shown").textContent = formatNumber(now.shown_fps, 1);
  $("captured").textContent = formatNumber(now.capture_fps, 1);
  const age = now.shown_fps ? now.age_ms : undefined;  // no frames, no age
  $("age-p50").textContent = formatNumber(age?.p50);
  $("age-p99").textContent = formatNumber(age?.p99);
  $("engine").textContent = formatNumber(now.engine_ms, 1);
  $("dropped").textContent = formatNumber(now.dropped);
  $("bottleneck").textContent = now.bottleneck ? `Bottleneck: ${now.bottleneck}` : "";
  if (age) {
    ages.push([age.p50, age.p99]);
    ages.splice(0, ages.length - HISTORY_SECONDS);
  }
  showChart();
  showClasses(now.classes ?? {});
  const disconnects = stats.disconnects ?? {};
  const disconnected = (stats.items ?? []).filter((item) => item.disconnects?.connected === false).map((item) => item.camera);
  if (disconnects.connected === false) showState("error", "camera disconnected, reconnecting");
  else if (settings.paused) showState("paused", "paused");
  else if (!("now" in stats)) showState("waiting", "waiting for the first metrics");
  else if (disconnected.length) showState("error", `live, ${disconnected.join(" and ")} disconnected`);
  else showState("live", disconnects.count ? `live, ${disconnects.count} disconnect${disconnects.count > 1 ? "s" : ""} so far` : "live");
}

function showChart() {
  const max = Math.max(50, ...ages.map((pair) => pair[1])) * 1.1;
  const points = (column) => ages.map((pair, i) =>
    `${(240 * (i + HISTORY_SECONDS - ages.length) / (HISTORY_SECONDS - 1)).toFixed(1)},${(56 - 54 * pair[column] / max).toFixed(1)}`).join(" ");
  $("line-p50").setAttribute("points", points(0));
  $("line-p99").setAttribute("points", points(1));
  $("chart-max").textContent = ages.length ? `0 to ${formatNumber(max)} ms` : "";
}

const rows = new Map();
function showClasses(shares) {
  const list = Object.entries(shares).filter(([, share]) => share >= 0.0005).sort((a, b) => b[1] - a[1]);
  for (const [name, row] of rows) {
    if (!list.some(([listed]) => listed === name)) { row.remove(); rows.delete(name); }
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
  const span = (className, text) => { const s = document.createElement("span"); s.className = className; s.textContent = text; return s; };
  const svg = (tag, attributes) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
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

function showSettings(latest) {
  settings = latest;
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-checked", String(button.dataset.view === settings.view));
  }
  if (document.activeElement !== $("alpha") || !dragging) $("alpha").value = settings.alpha;
  $("alpha-value").textContent = `${Math.round(100 * settings.alpha)} %`;
  $("alpha").disabled = settings.view === "mask";
  $("legend").setAttribute("aria-pressed", String(settings.legend));
  $("pause").setAttribute("aria-pressed", String(settings.paused));
  $("pause").textContent = settings.paused ? "Resume" : "Pause";
}

async function change(changes) {
  try { showSettings(await request("controls", changes)); } catch { showState("error", "no response from rtseg"); }
}

function startStream() {
  $("frame").src = `stream.mjpg?${Date.now()}`;
}

async function poll() {
  try {
    const [stats, controls] = await Promise.all([request("stats"), request("controls")]);
    if (failures) { failures = 0; $("hint").hidden = true; startStream(); }
    showSettings(controls);
    showMetrics(stats);
  } catch {
    failures += 1;
    showState("error", "no response from rtseg");
    $("hint").textContent = "rtseg has ended or is not reachable";
    $("hint").hidden = failures < 3;
  }
  setTimeout(poll, 1000);
}

let dragging = false;
for (const button of document.querySelectorAll("[data-view]")) button.onclick = () => change({ view: button.dataset.view });
$("alpha").oninput = () => { dragging = true; $("alpha-value").textContent = `${Math.round(100 * $("alpha").value)} %`; change({ alpha: Number($("alpha").value) }); };
$("alpha").onchange = () => { dragging = false; };
$("legend").onclick = () => change({ legend: !settings.legend });
$("pause").onclick = () => change({ paused: !settings.paused });
$("fullscreen").onclick = () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen());
$("snapshot").onclick = () => {
  const link = document.createElement("a");
  link.href = "snapshot.png";
  link.download = `rtseg-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.png`;
  link.click();
};
$("frame").onerror = () => { failures += 1; };
const VIEWS = ["overlay", "mask", "side-by-side"];
const addAlpha = (steps) => change({ alpha: Math.min(1, Math.max(0, Math.round(10 * settings.alpha + steps) / 10)) });
const KEYS = {
  m: () => change({ view: VIEWS[(VIEWS.indexOf(settings.view) + 1) % VIEWS.length] }),
  l: () => $("legend").click(), " ": () => $("pause").click(), s: () => $("snapshot").click(), f: () => $("fullscreen").click(),
  "+": () => addAlpha(1), "-": () => addAlpha(-1),
};
document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "BUTTON"].includes(event.target.tagName)) return;
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
};
request("about").then((about) => { colors = about.colors; }).catch(() => {}).finally(() => { startStream(); poll(); });
