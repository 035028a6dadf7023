// Drives the pages of the real binary with a real browser.
//
// MODELYARD_BINARY names the binary, MODELYARD_CHROMIUM the browser (/usr/bin/chromium by default).
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const chromium = process.env.MODELYARD_CHROMIUM ?? "/usr/bin/chromium";
const binary = process.env.MODELYARD_BINARY ?? path.join(root, "target/debug/modelyard");
const missing = [chromium, binary].find((file) => !existsSync(file));
const skip = missing ? `SKIPPED: ${missing} is not there` : false;
if (skip) console.error(skip);
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

let base, browser;
const servers = [];
const complaints = [];
const requests = [];

/** Starts a server and resolves to its address once it answers. */
async function start(...what) {
  const server = spawn(binary, ["serve", "--port", "0", "--log-format", "json", ...what]);
  servers.push(server);
  server.stdout.resume();
  const lines = createInterface({ input: server.stderr });
  const address = await new Promise((resolve, reject) => {
    lines.on("line", (line) => {
      const { address } = JSON.parse(line);
      if (address) resolve(address);
    });
    server.on("exit", () => reject(new Error("the server did not start")));
  });
  for (let attempt = 0; attempt < 300; attempt++) {
    const ready = await fetch(`${address}/v2/health/ready`).catch(() => ({ ok: false }));
    if (ready.ok) return address;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("the server did not become ready");
}

before(async () => {
  if (skip) return;
  const playwright = await import("playwright-core");
  base = await start(path.join(root, "samples/wine.onnx"));
  browser = await playwright.chromium.launch({ executablePath: chromium, args: flags });
});

after(async () => {
  await browser?.close();
  for (const server of servers) server.kill("SIGTERM");
});

async function open(where, options = {}) {
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 }, ...options });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(new URL(where, base).href);
  return page;
}

test("the first page shows the model and counts its requests", { skip }, async () => {
  const page = await open("/");
  const card = page.locator('[data-model="wine"]');
  assert.equal(await card.locator('[data-field="state"]').textContent(), "ready");
  const answered = card.locator('[data-field="answered"]');
  const before = Number(await answered.textContent());
  const { paths } = await (await fetch(`${base}/openapi.json`)).json();
  const example = paths["/v2/models/wine/infer"].post.requestBody.content["application/json"].example;
  const reply = await fetch(`${base}/v2/models/wine/infer`, { method: "POST", body: JSON.stringify(example) });
  assert.equal(reply.status, 200, await reply.text());
  await page.waitForFunction(
    (n) => Number(document.querySelector('[data-field="answered"]').textContent) === n, before + 1, { timeout: 10_000 });
  await page.close();
});

test("the trial page sends its example and shows the answer", { skip }, async () => {
  const page = await open("/docs");
  await page.waitForSelector("#trial:not([hidden])");
  const protocols = await page.locator("#protocol option").allTextContents();
  assert.deepEqual(protocols, ["Open Inference Protocol", "TensorFlow Serving"]);
  for (const protocol of protocols) {
    await page.selectOption("#protocol", protocol);
    await page.click("#send");
    await page.waitForSelector("#status:not([hidden])");
    const answer = await page.textContent("#answer");
    assert.match(await page.textContent("#status"), /^200/, answer);
    const parsed = JSON.parse(answer);
    assert.ok(protocol.startsWith("Open") ? parsed.outputs.length : parsed.outputs, answer);
    assert.match(await page.textContent("#snippet"), /^curl http/);
  }
  await page.selectOption("#protocol", protocols[0]);
  await page.click("#send");
  await page.waitForSelector("#headers dt");
  assert.match(await page.textContent("#headers"), /compute/);
  await page.close();
});

test("what is wrong with a body is said, by the page and by the server", { skip }, async () => {
  const page = await open("/docs");
  await page.waitForSelector("#trial:not([hidden])");
  await page.fill("#body", '{"inputs": [');
  assert.match(await page.textContent("#body-problem"), /^Not JSON/);
  await page.fill("#body", '{"inputs": []}');
  assert.equal(await page.textContent("#body-problem"), "");
  await page.click("#send");
  await page.waitForSelector("#status.unavailable");
  assert.match(await page.textContent("#status"), /^400/);
  assert.match(await page.textContent("#answer"), /"error"/);
  await page.click("#reset");
  assert.match(await page.inputValue("#body"), /"data"/);
  // The browser reports every status over 399; nothing else may have gone wrong.
  const expected = complaints.filter((text) => text.includes("400"));
  complaints.splice(complaints.indexOf(expected[0]), expected.length);
  await page.close();
});

test("the snippets do what the page does", { skip }, async () => {
  const page = await open("/docs");
  await page.waitForSelector("#trial:not([hidden])");
  const run = (command, args, input) => new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    let text = "";
    child.stdout.on("data", (data) => (text += data));
    child.on("error", reject);
    child.on("close", () => resolve(text));
    child.stdin.end(input);
  });
  const shell = await run("bash", ["-c", (await page.textContent("#snippet")).replace("curl", "curl -s")]);
  await page.click("#tab-python");
  const python = await run("python3", ["-"], await page.textContent("#snippet"));
  const outputs = (text) => JSON.parse(text).outputs;
  assert.deepEqual(outputs(python), outputs(shell));
  await page.focus("#tab-python");
  await page.keyboard.press("ArrowLeft");
  assert.equal(await page.getAttribute("#tab-curl", "aria-selected"), "true");
  await page.close();
});

test("pages fit a telephone, in the dark too", { skip }, async () => {
  for (const where of ["/", "/docs"]) {
    const page = await open(where, { viewport: { width: 380, height: 800 }, colorScheme: "dark" });
    await page.waitForSelector(where === "/" ? ".card" : "#trial:not([hidden])");
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${where} is ${overflow} pixels too wide`);
    const colour = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(colour, "rgb(15, 20, 17)");
    await page.close();
  }
});

test("the registry's pages show versions, traffic and what happened", { skip }, async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "modelyard-"));
  const shop = await start("--registry", folder);
  const send = async (method, where, body, type = "application/json") => {
    const headers = { "content-type": type, "modelyard-by": "ada <b>" };
    const reply = await fetch(`${shop}/v2/registry/models/wine${where}`, { method, headers, body });
    assert.ok(reply.ok, await reply.text());
  };
  const wine = readFileSync(path.join(root, "samples/wine.onnx"));
  for (const query of ["?alias=champion&reason=first", "?alias=candidate"]) {
    await send("POST", `/versions${query}`, wine, "application/octet-stream");
  }
  const plot = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 40"><script>document.title="bad"</script><path d="M0 40L80 0" stroke="red"/></svg>';
  await send("PUT", "/traffic", JSON.stringify({
    shares: [{ version: 1, share: 95 }, { version: 2, share: 5 }],
    reason: "canary", evidence: { error_rate: 0.012, plot, interval: [0.01, 0.02] },
  }));
  const page = await open(`${shop}/registry`);
  assert.match(await page.textContent('[data-model="wine"]'), /champion → 1/);
  await page.click("text=wine");
  assert.equal(await page.textContent("h1"), "wine");
  assert.equal(await page.locator("[data-version]").count(), 2);
  assert.match(await page.textContent(".legend"), /version 1 95%.*version 2 5%/s);
  const first = page.locator(".history li").first();
  assert.match(await first.textContent(), /Traffic split: version 1 95%, version 2 5%.*ada <b>.*canary.*0\.012/s);
  await page.waitForFunction(() => document.querySelector(".plot").naturalWidth > 0);
  assert.equal(await page.title(), "wine");
  await page.click("summary");
  assert.match(await first.locator("pre").textContent(), /interval/);
  const small = await open(`${shop}/registry/wine`, { viewport: { width: 380, height: 800 }, colorScheme: "dark" });
  const overflow = await small.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `the registry's page is ${overflow} pixels too wide`);
  await small.close();
  await page.close();
  const trial = await open(`${shop}/docs`);
  await trial.waitForSelector("#trial:not([hidden])");
  await trial.close();
  const own = requests.filter((url) => url.startsWith(shop) || url.startsWith("data:image/svg+xml"));
  own.forEach((url) => requests.splice(requests.indexOf(url), 1));
  rmSync(folder, { recursive: true, force: true });
});

test("an alert is shown, kept quiet by a button, and no longer", { skip }, async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "modelyard-alerts-"));
  const rules = path.join(folder, "alerts.toml");
  writeFileSync(rules, `
    every = "1s"
    [[rules]]
    name = "Served"
    metric = "modelyard_model_ready"
    above = 0
    severity = "critical"
    summary = "{model} is served <b>at last</b>"
  `);
  const alerting = await start(path.join(root, "samples/wine.onnx"), "--alerts", rules,
    "--alerts-state", path.join(folder, "state.json"));
  const page = await open(`${alerting}/alerts`);
  const row = page.locator('[data-alert="Served"]');
  for (let look = 0; look < 100 && !(await row.count()); look++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    await page.reload();
  }
  assert.match(await row.textContent(), /firing.*wine is served <b>at last<\/b>/s);
  await row.getByRole("button").click();
  await page.waitForFunction(() => document.querySelector('[data-alert="Served"]')?.textContent.includes("quiet"));
  await page.screenshot({ path: path.join(root, "target/alerts.png"), fullPage: true });
  await page.getByRole("button", { name: "End" }).click();
  await page.waitForFunction(() => document.querySelector('[data-alert="Served"]')?.textContent.includes("firing"));
  await page.close();
  const own = requests.filter((url) => url.startsWith(alerting));
  own.forEach((url) => requests.splice(requests.indexOf(url), 1));
  rmSync(folder, { recursive: true, force: true });
});

test("controls have names, nothing came from outside, nothing was blocked", { skip }, async () => {
  const page = await open("/docs");
  await page.waitForSelector("#trial:not([hidden])");
  const unnamed = await page.evaluate(() =>
    [...document.querySelectorAll("button, select, textarea, a, img")]
      .filter((e) => !(e.textContent.trim() || e.labels?.length || e.hasAttribute("aria-labelledby") || e.hasAttribute("alt")))
      .map((e) => e.outerHTML));
  assert.deepEqual(unnamed, []);
  assert.deepEqual(requests.filter((url) => !url.startsWith(base)), []);
  assert.deepEqual(complaints, []);
  await page.close();
});
