// Makes the pictures of the documentation from the real binary: docs.png, a screenshot of /docs, and
// terminal.svg, what a terminal shows. Run it after `tests/install browser`:
//
//   MODELYARD_BINARY=target/release/modelyard node docs/images/make.mjs
import { execFileSync, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, "../..");
const binary = path.resolve(process.env.MODELYARD_BINARY ?? path.join(root, "target/release/modelyard"));
const { chromium } = createRequire(path.join(root, "tests/browser/"))("playwright-core");

const log = [];
const server = spawn(binary, ["serve", "samples/wine.onnx", "--log-format", "pretty"], { cwd: root });
server.stdout.resume();
const lines = createInterface({ input: server.stderr });
await new Promise((resolve, reject) => {
  lines.on("line", (line) => {
    // The time and the padding of the level are noise in a picture.
    log.push(line.replace(/^\S+\s+/, ""));
    if (line.includes("loaded")) resolve();
  });
  server.on("exit", () => reject(new Error(`the server stopped: ${log.join("\n")}`)));
});

try {
  await screenshot();
  const session = [["serve samples/wine.onnx", log.join("\n")]];
  for (const command of ["infer wine --input samples/request.json", "bench wine --connections 4 --duration 3s"]) {
    session.push([command, execFileSync(binary, command.split(" "), { cwd: root, encoding: "utf8" })]);
  }
  writeFileSync(path.join(here, "terminal.svg"), drawing(session));
} finally {
  server.kill("SIGTERM");
}

async function screenshot() {
  const flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });
  const page = await browser.newPage({ viewport: { width: 1160, height: 800 } });
  await page.goto("http://127.0.0.1:8080/docs");
  await page.waitForSelector("#trial:not([hidden])");
  await page.click("#send");
  await page.waitForSelector("#status:not([hidden])");
  await page.locator("#send").blur();
  await page.mouse.move(0, 0);
  await page.screenshot({ path: path.join(here, "docs.png"), fullPage: true });
  await browser.close();
}

/** Text on a dark card; what was typed is brighter than what was answered. */
function drawing(session) {
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const rows = session.flatMap(([command, text], i) => [
    ...(i ? [["", ""]] : []),
    ["typed", `$ modelyard ${command}`],
    ...text.trimEnd().split("\n").map((line) => ["", line.trimEnd()]),
  ]);
  const [left, top, height, glyph] = [20, 34, 18, 7.83];
  const width = Math.ceil(Math.max(...rows.map(([, text]) => [...text].length)) * glyph + 2 * left);
  const text = rows.map(([kind, line], i) =>
    `<text x="${left}" y="${top + i * height}"${kind ? ` class="${kind}"` : ""}>${escape(line)}</text>`);
  const total = top + rows.length * height + 4;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${total}" width="${width}" height="${total}" role="img" aria-label="A terminal: serve, infer and bench">
<style>text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#c9d1cb;white-space:pre}.typed{fill:#86efac;font-weight:600}</style>
<rect width="100%" height="100%" rx="10" fill="#0f1411"/>
${text.join("\n")}
</svg>
`;
}
