// Tries the server out: what can be sent comes from /openapi.json, so the page and the description
// cannot disagree. Everything from the server is put in as text, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
const bytes = (text) => new TextEncoder().encode(text).length;
const size = (n) => (n < 1000 ? `${n} bytes` : n < 1e6 ? `${(n / 1000).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`);

let operations = [];
let language = "curl";

/** JSON with one line for each row of numbers, and the keys in the order that people read. */
function pretty(value, indent = "") {
  if (Array.isArray(value)) {
    if (value.every((item) => item === null || typeof item !== "object")) return wrap(value, indent);
    const items = value.map((item) => `${indent}  ${pretty(item, `${indent}  `)}`);
    return `[\n${items.join(",\n")}\n${indent}]`;
  }
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const order = ["model_name", "model_version", "id", "parameters", "name", "shape", "datatype", "data", "inputs"];
  const rank = (key) => (order.indexOf(key) + 1 || order.length + 1);
  const keys = Object.keys(value).sort((a, b) => rank(a) - rank(b));
  if (keys.length === 0) return "{}";
  const fields = keys.map((key) => `${indent}  ${JSON.stringify(key)}: ${pretty(value[key], `${indent}  `)}`);
  return `{\n${fields.join(",\n")}\n${indent}}`;
}

/** A flat array on one line if it fits, else on lines of about 76 characters. */
function wrap(values, indent) {
  const texts = values.map((value) => JSON.stringify(value));
  const single = `[${texts.join(", ")}]`;
  if (single.length + indent.length <= 76) return single;
  const lines = [];
  let line = "";
  for (const text of texts) {
    if (line && line.length + text.length + indent.length > 72) {
      lines.push(line);
      line = "";
    }
    line += line ? ` ${text},` : `${text},`;
  }
  lines.push(line);
  return `[\n${lines.map((l) => `${indent}  ${l}`).join("\n").replace(/,$/, "")}\n${indent}]`;
}

function fill(list, options, chosen) {
  list.replaceChildren(...options.map(([value, label]) => new Option(label, value, false, value === chosen)));
}

function current() {
  const of = operations.filter((operation) => operation.key === $("model").value);
  return of.find((operation) => operation.protocol === $("protocol").value) ?? of[0];
}

function rows(body, specs) {
  const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  body.replaceChildren(...specs.map((spec) => {
    const row = document.createElement("tr");
    const shape = spec.shape ? `[${spec.shape.map((d) => d ?? "?").join(", ")}]` : "any";
    row.append(cell("th", spec.name), cell("td", spec.datatype), cell("td", shape));
    row.firstChild.scope = "row";
    const notes = [];
    if (spec.optional) notes.push("optional");
    if (spec.labels?.length) notes.push(spec.labels.join(", "));
    if (notes.length) row.lastChild.append(Object.assign(cell("span", ` ${notes.join(" · ")}`), { className: "quiet" }));
    return row;
  }));
}

function show() {
  const operation = current();
  const protocols = operations.filter((o) => o.key === operation.key).map((o) => [o.protocol, o.protocol]);
  fill($("protocol"), protocols, operation.protocol);
  $("how").textContent = `runs on ${operation.engine}`;
  rows($("inputs"), operation.inputs);
  rows($("outputs"), operation.outputs);
  $("path").textContent = operation.path;
  $("body").value = operation.example === undefined ? "" : pretty(operation.example);
  $("answer").replaceChildren(Object.assign(document.createElement("span"), {
    className: "quiet",
    textContent: operation.example === undefined
      ? "An example would be too long for this page: send this model binary tensor data."
      : "Press Send to see what the model says.",
  }));
  $("status").hidden = true;
  $("took").textContent = "";
  $("headers").replaceChildren();
  edited();
}

/** Checks the body as it is typed, and keeps the snippets in step with it. */
function edited() {
  const text = $("body").value;
  let problem = "";
  try {
    JSON.parse(text);
  } catch (error) {
    problem = `Not JSON: ${error.message}`;
  }
  $("body-problem").textContent = problem;
  $("request-size").textContent = size(bytes(text));
  $("snippet").textContent = snippet(text, problem);
}

function snippet(text, problem) {
  const url = location.origin + current().path;
  let compact = text;
  if (!problem) compact = JSON.stringify(JSON.parse(text));
  if (language === "curl") {
    const quoted = compact.replaceAll("'", `'\\''`);
    return `curl ${url} \\\n  -H 'content-type: application/json' \\\n  -d '${quoted}'`;
  }
  const literal = compact
    .replaceAll("\\", "\\\\")
    .replaceAll("'''", "\\'\\'\\'")
    .replace(/'$/, "\\'");
  return [
    "import json",
    "import urllib.request",
    "",
    `body = '''${literal}'''`,
    `request = urllib.request.Request("${url}", body.encode(), {"content-type": "application/json"})`,
    "with urllib.request.urlopen(request) as answer:",
    "    print(json.dumps(json.load(answer), indent=2))",
  ].join("\n");
}

async function send() {
  const operation = current();
  $("send").disabled = true;
  const start = performance.now();
  try {
    const response = await fetch(operation.path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: $("body").value,
    });
    const text = await response.text();
    const took = performance.now() - start;
    $("status").textContent = `${response.status} ${response.statusText}`.trim();
    $("status").className = `pill ${response.ok ? "ready" : "unavailable"}`;
    $("took").textContent = `${took.toFixed(1)} ms there and back, ${size(bytes(text))}`;
    $("answer").textContent = readable(text);
    headers(response.headers);
  } catch (error) {
    $("status").textContent = "no answer";
    $("status").className = "pill unavailable";
    $("answer").textContent = error.message;
    headers([]);
  } finally {
    $("status").hidden = false;
    $("send").disabled = false;
  }
}

function readable(text) {
  try {
    return pretty(JSON.parse(text));
  } catch {
    return text; // NaN is legal in an answer, though not in JSON.
  }
}

/** Shows what the server says about the work: every header that is not HTTP's own. */
function headers(all) {
  const usual = ["content-type", "content-length", "date", "connection", "keep-alive", "vary", "transfer-encoding"];
  const told = [...all].filter(([name]) => !usual.includes(name));
  $("headers").replaceChildren(...told.flatMap(([name, value]) => [
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: value }),
  ]));
}

function choose(tab) {
  language = tab === $("tab-curl") ? "curl" : "python";
  for (const other of [$("tab-curl"), $("tab-python")]) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
  }
  $("snippet").setAttribute("aria-labelledby", tab.id);
  edited();
}

async function copy() {
  const button = $("copy");
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
    button.textContent = "Copied";
  } catch {
    // Without a secure context there is no clipboard: select it for the reader instead.
    getSelection().selectAllChildren($("snippet"));
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function read(document_) {
  for (const [path, methods] of Object.entries(document_.paths)) {
    const about = methods.post?.["x-modelyard"];
    if (!about) continue;
    const media = methods.post.requestBody.content["application/json"];
    const named = path.includes("/versions/");
    operations.push({
      ...about,
      path,
      key: named ? `${about.model} (version ${about.version})` : about.model,
      example: media.example,
    });
  }
}

async function start() {
  const document_ = await (await fetch("/openapi.json")).json();
  $("server").textContent = document_.info.title;
  $("server-version").textContent = document_.info.version;
  document.title = `${document_.info.title}: try it out`;
  read(document_);
  if (operations.length === 0) {
    $("problem").textContent = "No model is ready. This page shows what is loaded when it is opened.";
    $("problem").hidden = false;
    return;
  }
  // The protocol with the most to it comes first.
  operations.sort((a, b) => a.key.localeCompare(b.key) || a.protocol.localeCompare(b.protocol));
  const wanted = decodeURIComponent(location.hash.slice(1));
  const keys = [...new Set(operations.map((operation) => operation.key))];
  fill($("model"), keys.map((key) => [key, key]), keys.includes(wanted) ? wanted : keys[0]);
  fill($("protocol"), []);
  $("choice").hidden = false;
  $("trial").hidden = false;
  show();
}

$("choice").addEventListener("submit", (event) => event.preventDefault());
$("model").addEventListener("change", () => {
  history.replaceState(null, "", `#${encodeURIComponent($("model").value)}`);
  show();
});
$("protocol").addEventListener("change", show);
$("body").addEventListener("input", edited);
$("reset").addEventListener("click", show);
$("send").addEventListener("click", send);
$("copy").addEventListener("click", copy);
$("body").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
});
for (const tab of [$("tab-curl"), $("tab-python")]) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = tab === $("tab-curl") ? $("tab-python") : $("tab-curl");
    choose(other);
    other.focus();
  });
}
start().catch((error) => {
  $("problem").textContent = `The server's description could not be loaded: ${error.message}`;
  $("problem").hidden = false;
});
