"use strict";
// The live page: listens to /events, and draws what comes once a second. Everything that comes from outside is set as
// text, never as markup. Rows are kept and updated in place, so that a reader's focus and selection stay.

const SCHEMA = 2;
const HISTORY = 300; // points of the plots, one a second
const STALE_MS = 5000;
const LANE_COLOURS = 5;
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);
const view = { history: [], state: null, paused: false, match: "", source: null, heardAt: 0 };

// ---- small words

const number = (value, digits = 0) =>
  value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: 0 });
const rate = (value) => (value == null ? "–" : value === 0 ? "0" : value < 10 ? value.toFixed(1) : number(value));
const duration = (s) => {
  if (s == null) return "–";
  if (s < 0.001) return `${Math.round(s * 1e6)} µs`;
  if (s < 0.01) return `${(s * 1e3).toFixed(1)} ms`;
  if (s < 1) return `${Math.round(s * 1e3)} ms`;
  return s < 10 ? `${s.toFixed(2)} s` : `${Math.round(s)} s`;
};
const decade = (s) => (s < 0.001 ? `${number(s * 1e6)} µs` : s < 1 ? `${number(s * 1e3)} ms` : `${number(s)} s`);
const bytes = (value) => {
  const units = ["B", "KiB", "MiB", "GiB"];
  let place = 0;
  while (value >= 1024 && place < units.length - 1) { value /= 1024; place += 1; }
  return `${number(value, place ? 1 : 0)} ${units[place]}`;
};
const percent = (part) => `${(100 * part).toFixed(part < 0.1 ? 1 : 0)} %`;
const uptime = (s) => {
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min` : `${Math.floor(s / 86400)} days`;
};
const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

// ---- elements

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Make the children of `parent` those of `items`: kept by key, made with `make`, brought up to date with `update`. */
function keep(parent, items, key, make, update) {
  const had = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = had.get(name);
    had.delete(name);
    if (!child) { child = make(item); child.dataset.key = name; }
    if (child !== place) parent.insertBefore(child, place);
    else place = place.nextElementSibling;
    update(child, item);
  }
  for (const gone of had.values()) gone.remove();
}

// ---- plots

function plot(className) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `plot ${className}`);
  svg.setAttribute("viewBox", "0 0 300 92");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  return svg;
}

function draw(svg, shapes) {
  keep(svg, shapes, (shape) => shape.key, (shape) => {
    const made = document.createElementNS(SVG, "path");
    made.setAttribute("class", shape.className);
    return made;
  }, (path, shape) => path.setAttribute("d", shape.d));
}

// The present is at the right; what is younger than a minute has room to show a minute.
const xOf = (place, count) => 300 - ((count - 1 - place) * 300) / Math.max(60, count);

/** Path segments of a line with gaps where there is no value. */
function line(values, y) {
  let path = "";
  let drawing = false;
  values.forEach((value, place) => {
    if (value == null) { drawing = false; return; }
    path += `${drawing ? "L" : "M"}${xOf(place, values.length)} ${y(value).toFixed(1)}`;
    if (!drawing) path += "h0.8";
    drawing = true;
  });
  return path;
}

function area(values, y, floor) {
  if (!values.length) return "";
  const first = xOf(0, values.length);
  const points = values.map((value, place) => `L${xOf(place, values.length)} ${y(value || 0).toFixed(1)}`).join("");
  return `M${first} ${floor}${points}L300 ${floor}Z`;
}

function band(low, high, y) {
  let path = "";
  low.forEach((value, place) => {
    if (value == null || high[place] == null) return;
    const x = xOf(place, low.length);
    const wide = xOf(1, low.length) - xOf(0, low.length);
    path += `M${x} ${y(value).toFixed(1)}V${y(high[place]).toFixed(1)}h${-wide}V${y(value).toFixed(1)}Z`;
  });
  return path;
}

/** Latency on a logarithmic axis, whole decades. */
function drawLatency(lane, name, about) {
  const points = view.history.map((point) => point.classes[name] || {});
  const low = points.map((point) => point.p50_s);
  const high = points.map((point) => point.p99_s);
  const all = [...low, ...high].filter((value) => value != null);
  const bottom = Math.floor(Math.log10(Math.max(1e-4, Math.min(...all, 0.01)) * 1.001));
  const top = Math.max(bottom + 1, Math.ceil(Math.log10(Math.max(...all, 0.1)) - 0.001));
  const y = (s) => 88 - (84 * (Math.log10(Math.max(s, 1e-5)) - bottom)) / (top - bottom);
  const decades = [];
  for (let power = bottom; power <= top; power += 1) decades.push(10 ** power);
  const shapes = decades.map((s) => ({ key: `grid ${s}`, className: "grid", d: `M0 ${y(s)}H300` }));
  if (about.wait_s) shapes.push({ key: "bound", className: "bound", d: `M0 ${y(about.wait_s)}H300` });
  shapes.push({ key: "band", className: "band", d: band(low, high, y) });
  shapes.push({ key: "p99", className: "p99", d: line(high, y) });
  shapes.push({ key: "p50", className: "p50", d: line(low, y) });
  draw(lane.latency, shapes);
  label(lane.latencyLabels, decades.map((s) => [decade(s), y(s)]));
  lane.latency.setAttribute("aria-label", all.length
    ? `${name}: over the last five minutes the median was between ${duration(Math.min(...low.filter((v) => v != null)))} ` +
      `and ${duration(Math.max(...low))}, the 99th percentile at most ${duration(Math.max(...high))}`
    : `${name}: nothing was answered in the last five minutes`);
}

function drawQueue(lane, name) {
  const points = view.history.map((point) => point.classes[name] || {});
  const depth = points.map((point) => point.queued || 0);
  const refused = points.map((point) => point.refused_per_s || 0);
  const highest = Math.max(4, ...depth);
  const worst = Math.max(1, ...refused);
  const y = (value) => 88 - (84 * value) / highest;
  const wide = xOf(1, refused.length) - xOf(0, refused.length);
  draw(lane.queue, [
    { key: "floor", className: "grid", d: "M0 88H300" },
    { key: "area", className: "area", d: area(depth, y, 88) },
    { key: "refused", className: "refused", d: refused.map((value, place) => value
      ? `M${xOf(place, refused.length)} 88h${-wide}v${-(4 + 14 * value / worst).toFixed(1)}h${wide}Z` : "").join("") },
  ]);
  label(lane.queueLabels, [[number(highest), 4], ["0", 88]]);
  lane.queue.setAttribute("aria-label",
    `${name}: up to ${number(Math.max(0, ...depth))} requests waited in the last five minutes, ` +
    `up to ${rate(Math.max(0, ...refused))} a second were refused`);
}

function label(holder, labels) {
  keep(holder, labels.slice(0, 6), (each) => each[0], () => element("span"), (span, [text, y]) => {
    setText(span, text);
    span.style.top = `${y}px`;
  });
}

// ---- lanes

const FIGURES = [["p50", "median"], ["p99", "99 %"], ["wait", "99 % wait"], ["rate", "answered/s"], ["refused", "refused/s"], ["pushback", "come back in"]];

function makeLane() {
  const item = element("li", "lane");
  const heading = element("h3");
  const about = element("p", "about quiet");
  const figures = element("dl", "figures");
  const values = {};
  for (const [key, title] of FIGURES) {
    values[key] = element("dd");
    figures.append(element("div", "", element("dt", "", title), values[key]));
  }
  const latency = plot("latency");
  const queue = plot("queue");
  const latencyLabels = element("div", "plot-labels");
  const queueLabels = element("div", "plot-labels");
  latencyLabels.ariaHidden = queueLabels.ariaHidden = "true";
  const fill = element("div", "fill");
  const flow = element("div", "flow");
  const [output, leaving] = [element("output"), element("output", "leaving")];
  output.ariaLive = leaving.ariaLive = "off"; // they change every second
  const track = element("div", "track", flow, fill);
  track.ariaHidden = "true";
  item.append(
    element("div", "who", heading, about, figures),
    element("figure", "", element("figcaption", "", element("span", "", "latency: median, dashed 99 %")),
      element("div", "plotted", latency, latencyLabels)),
    element("figure", "", element("figcaption", "", element("span", "", "waiting, and refused in red")),
      element("div", "plotted", queue, queueLabels)),
    element("div", "road", output, track, leaving),
  );
  item.parts = { heading, about, values, latency, queue, latencyLabels, queueLabels, fill, flow, output, leaving };
  return item;
}

function updateLane(item, about, place) {
  const { heading, values, fill, flow, output, leaving } = item.parts;
  item.style.setProperty("--colour", `var(--lane-${place % LANE_COLOURS})`);
  setText(heading, about.name);
  setText(item.parts.about, `weight ${number(about.weight, 2)}` +
    (about.wait_s ? `, waits at most ${duration(about.wait_s)} for lesser batches` : ""));
  setText(values.p50, duration(about.p50_s));
  setText(values.p99, duration(about.p99_s));
  setText(values.wait, duration(about.wait_p99_s));
  setText(values.rate, rate(about.completed_per_s));
  setText(values.refused, rate(about.refused_per_s));
  setText(values.pushback, about.refused_per_s ? `${number(about.pushback_s)} s` : "–");
  values.refused.parentElement.classList.toggle("alarm", about.refused_per_s > 0);
  const part = about.max_queued ? Math.min(1, about.queued / about.max_queued) : 0;
  fill.style.width = `${about.queued ? Math.max(0.6, 100 * part) : 0}%`;
  flow.classList.toggle("moving", about.completed_per_s > 0);
  // A quicker pace for more answers a second, in steps, so that the animation does not start anew every second.
  const pace = 2 ** -Math.round(Math.log2(Math.max(1, about.completed_per_s)) / 2) * 8;
  flow.style.setProperty("--pace", `${Math.max(0.25, pace)}s`);
  setText(output, `${number(about.queued)} of ${number(about.max_queued)} waiting, ${bytes(about.queue_bytes)}`);
  setText(leaving, `${number(about.in_flight)} in flight`);
  drawLatency(item.parts, about.name, about);
  drawQueue(item.parts, about.name);
}

// ---- tables

function makeTenant() {
  const fill = element("div", "fill");
  const due = element("div", "due");
  const track = element("div", "track", fill, due);
  track.ariaHidden = "true";
  const output = element("output");
  output.ariaLive = "off";
  const due_text = element("span", "unseen");
  const name = element("th");
  name.scope = "row";
  const cells = ["number wide", "number", "number", "number", "number"].map((kind) => element("td", kind));
  const row = element("tr", "", name, element("td", "", element("div", "share", track, output, due_text)), ...cells);
  row.parts = { name, fill, due, output, due_text, cells };
  return row;
}

function updateTenant(row, tenant) {
  const { name, fill, due, output, due_text, cells } = row.parts;
  setText(name, tenant.name);
  name.title = tenant.name;
  fill.style.width = `${Math.min(100, 100 * tenant.share)}%`;
  due.style.left = `${Math.min(100, 100 * tenant.due)}%`;
  setText(output, percent(tenant.share));
  setText(due_text, `due ${percent(tenant.due)}`);
  const capped = tenant.max_in_flight != null && tenant.in_flight >= tenant.max_in_flight;
  [number(tenant.weight, 2), rate(tenant.requests_per_s), rate(tenant.refused_per_s),
    `${number(tenant.in_flight)} / ${tenant.max_in_flight == null ? "any" : number(tenant.max_in_flight)}${capped ? " at cap" : ""}`,
    number(tenant.queued)].forEach((text, place) => setText(cells[place], text));
  cells[2].classList.toggle("alarm", tenant.refused_per_s >= 0.05);
  cells[3].classList.toggle("capped", capped);
}

function makeModel() {
  const name = element("th");
  name.scope = "row";
  const cells = ["number", "number", "number", "number", "number wide", "number wide"].map((kind) => element("td", kind));
  const row = element("tr", "", name, ...cells);
  row.parts = { name, cells };
  return row;
}

function updateModel(row, model) {
  setText(row.parts.name, model.name);
  const expected = model.estimate_row_s == null ? "–"
    : `${duration(model.estimate_batch_s)} + ${duration(model.estimate_row_s)} a row`;
  [number(model.queued), `${number(model.in_flight)} / ${number(model.instances)}`, number(model.rows_per_batch, 1),
    duration(model.batch_s), expected, rate(model.batches_per_s)]
    .forEach((text, place) => setText(row.parts.cells[place], text));
}

function makeBackend() {
  const mark = element("span", "mark");
  const name = element("strong");
  const about = element("span", "quiet");
  const told = element("p", "quiet");
  const picture = plot("moves");
  const limit = element("div", "limit", told, picture);
  const item = element("li", "", mark, name, about, limit);
  item.parts = { mark, name, about, limit, told, picture };
  return item;
}

function updateBackend(item, backend) {
  const { mark, name, about, limit } = item.parts;
  setText(name, backend.name);
  const batches = Object.values(backend.in_flight).reduce((sum, count) => sum + count, 0);
  const broken = Object.entries(backend.breakers).filter(([, breaker]) => breaker.state !== "closed")
    .map(([model, breaker]) => `, breaker of ${model} ${breaker.state.replace("_", " ")}: ${breaker.why}`).join("");
  mark.dataset.level = backend.leaving ? "note" : !backend.ready ? "bad" : broken ? "note" : "good";
  setText(mark, MARKS[mark.dataset.level]);
  setText(about, `${backend.leaving ? "leaving" : backend.ready ? "ready" : "not ready"}, ${number(batches)} ${batches === 1 ? "batch" : "batches"}, ${duration(backend.work_s)} of work${broken}`);
  limit.hidden = backend.models < 2; // with one model there is nothing to be limited beside
  if (!limit.hidden) updateLimit(item.parts, backend);
}

/** What the adaptive limit is, what it did in the last minutes, and why it moved last. */
function updateLimit({ told, picture }, backend) {
  const { limit, lesser, ratio, why, moved_ago_s: ago } = backend.concurrency;
  setText(told, `${number(lesser)} lesser ${lesser === 1 ? "batch" : "batches"}; beside a more important model at most ${number(Math.floor(limit))}` +
    (ago == null ? `: ${why}` : `, moved at ${clock(view.state.at - ago)}: ${why}`) +
    (ratio > 1.005 ? ` (now ${number(ratio, 2)} times as long as alone)` : ""));
  const values = view.history.map((point) => (point.limits || {})[backend.name]);
  const known = values.filter((value) => value != null);
  const highest = Math.max(2, ...known);
  const y = (value) => 88 - (84 * value) / highest;
  draw(picture, [{ key: "floor", className: "grid", d: "M0 88H300" }, { key: "limit", className: "p50", d: line(values, y) }]);
  picture.setAttribute("aria-label", known.length
    ? `${backend.name}: the limit was between ${number(Math.min(...known), 1)} and ${number(Math.max(...known), 1)} in the last five minutes`
    : `${backend.name}: nothing is known of the limit yet`);
}

function makeUnserved() {
  const mark = element("span", "mark", MARKS.bad);
  mark.ariaHidden = "true";
  const item = element("li", "", mark, element("span"));
  item.dataset.level = "bad";
  return item;
}

function updateUnserved(item, about) {
  setText(item.lastElementChild, `${about.name} is not served: ${about.why}`);
}

const MARKS = { good: "●", note: "▲", bad: "■" };

function makeHappening(happening) {
  const mark = element("span", "mark", MARKS[happening.level] || "●");
  mark.ariaHidden = "true";
  const item = element("li", "", mark, element("time", "", clock(happening.at)), element("span", "", happening.text));
  item.dataset.level = happening.level;
  return item;
}

// ---- all of it

function drawAll() {
  const state = view.state;
  if (!state) return;
  const sum = (key) => state.classes.reduce((total, each) => total + (each[key] || 0), 0);
  setText(byId("total-queued"), number(state.queued));
  setText(byId("total-in-flight"), number(state.in_flight));
  setText(byId("total-rate"), `${rate(sum("completed_per_s"))}/s`);
  setText(byId("total-refused"), `${rate(sum("refused_per_s"))}/s`);
  setText(byId("total-bytes"), `${bytes(state.queue_bytes)} of ${bytes(state.queue_bytes_limit)}`);
  let place = 0;
  keep(byId("lanes"), state.classes, (each) => each.name, makeLane, (item, each) => updateLane(item, each, place++));
  const tenants = state.tenants;
  keep(byId("tenants"), tenants.rows, (each) => each.name, makeTenant, updateTenant);
  const shown = tenants.rows.length < tenants.matching ? `the busiest ${tenants.rows.length} of ${number(tenants.matching)}` : number(tenants.matching);
  setText(byId("tenants-count"), view.match ? `${shown} that match, ${number(tenants.known)} known` : `${shown} in the last minutes, ${number(tenants.active)} of them active`);
  keep(byId("models"), state.models, (each) => each.name, makeModel, updateModel);
  keep(byId("unserved"), state.unserved, (each) => each.name, makeUnserved, updateUnserved);
  keep(byId("backends"), state.backends, (each) => each.name, makeBackend, updateBackend);
  keep(byId("happenings"), state.happenings, (each) => `${each.at} ${each.text}`, makeHappening, () => {});
  const process = state.process;
  setText(byId("process"), `Scheduler: ${percent(process.cpu)} of a core, ${duration(process.cpu_per_request_s)} of CPU a request, ` +
    `event loop late by ${duration(process.loop_lag_p99_s)} (99 %), garbage collector ${percent(process.gc)}`);
}

function setStatus(level, text) {
  const status = byId("status");
  status.dataset.level = level;
  setText(status, text);
  document.body.classList.toggle("stale", level === "bad" && text.startsWith("no word"));
}

function tellStatus() {
  if (view.paused) return setStatus("wait", "paused");
  if (Date.now() - view.heardAt > STALE_MS) {
    return setStatus("bad", view.heardAt ? `no word since ${clock(view.heardAt / 1000)}` : "no word yet");
  }
  const state = view.state;
  if (state.schema !== SCHEMA) return setStatus("bad", `the service speaks version ${state.schema}: reload this page`);
  // Minutes, not seconds: what a screen reader is told changes rarely.
  setStatus(state.ready ? "good" : "bad", state.ready ? `ready, up ${uptime(state.uptime_s < 60 ? 0 : state.uptime_s)}`.replace(", up 0 s", "") : "not ready");
}

function listen() {
  if (view.source) view.source.close();
  const source = new EventSource(`/events?match=${encodeURIComponent(view.match)}`);
  view.source = source;
  source.addEventListener("history", (event) => { view.history = JSON.parse(event.data); });
  source.addEventListener("state", (event) => {
    const state = JSON.parse(event.data);
    const last = view.history[view.history.length - 1];
    if (state.point && (!last || state.point.at > last.at)) view.history.push(state.point);
    view.history = view.history.slice(-HISTORY);
    view.state = state;
    view.heardAt = Date.now();
    if (!view.paused && state.schema === SCHEMA) drawAll();
    tellStatus();
  });
}

function pause() {
  view.paused = !view.paused;
  const button = byId("pause");
  button.setAttribute("aria-pressed", String(view.paused));
  setText(button, view.paused ? "Go on" : "Pause");
  if (!view.paused) drawAll();
  tellStatus();
}

async function explain(id) {
  const answer = byId("answer");
  let told;
  try {
    const reply = await fetch(`/debug/requests/${encodeURIComponent(id)}`);
    told = await reply.json();
  } catch (error) {
    told = { error: `no answer: ${error.message}` };
  }
  if (told.error) { answer.replaceChildren(element("p", "", told.error)); return; }
  const parts = element("div", "parts");
  parts.role = "img";
  parts.ariaLabel = Object.entries(told.parts).map(([name, s]) => `${name} ${duration(s)}`).join(", ");
  for (const [name, s] of Object.entries(told.parts)) {
    if (s <= 0) continue;
    const part = element("div", name === told.largest ? "largest" : "", `${name} ${duration(s)}`);
    part.style.flexGrow = String(s);
    part.style.flexBasis = "0";
    part.title = `${name} ${duration(s)}`;
    parts.append(part);
  }
  const steps = element("ol", "", ...told.timeline.map((step) =>
    element("li", "", element("span", "", `+${duration(step.after_s)}`), element("span", "", step.what))));
  answer.replaceChildren(element("p", "", element("strong", "", told.why)), parts, steps);
}

function start() {
  byId("pause").addEventListener("click", pause);
  document.addEventListener("keydown", (event) => {
    if (event.key === "p" && !event.ctrlKey && !event.metaKey && !event.altKey && event.target.tagName !== "INPUT") pause();
  });
  let waiting = 0;
  byId("tenant-filter").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { view.match = event.target.value.trim(); listen(); }, 250);
  });
  byId("explain").addEventListener("submit", (event) => {
    event.preventDefault();
    explain(byId("request-id").value.trim());
  });
  setInterval(() => { if (view.state || view.heardAt === 0) tellStatus(); }, 1000);
  view.heardAt = 0;
  listen();
}

start();
