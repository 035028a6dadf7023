// Keeps alerts quiet from their page. The page is whole without this.
"use strict";

const HOUR = 3600e3;

function say(text) {
  const problem = document.getElementById("problem");
  if (!problem) return;
  problem.textContent = text;
  problem.hidden = !text;
}

async function change(method, path, body) {
  const headers = body ? { "content-type": "application/json" } : {};
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (response.ok) return location.reload();
  const said = await response.json().catch(() => ({}));
  say(said.error ?? `the server answered ${response.status}`);
}

function pressed(event) {
  const button = event.target.closest("button[data-silence], button[data-unsilence]");
  if (!button) return;
  const { silence, unsilence } = button.dataset;
  const asked = silence
    ? change("POST", "/v2/alerts/silences", {
        where: JSON.parse(silence),
        until: new Date(Date.now() + HOUR).toISOString(),
        why: "from the page",
      })
    : change("DELETE", `/v2/alerts/silences/${encodeURIComponent(unsilence)}`);
  asked.catch(() => say("no connection"));
}

document.addEventListener("click", pressed);
