// Keeps the numbers of the page fresh. The page is whole without this.
"use strict";

const number = new Intl.NumberFormat("en");

function show(card, field, value) {
  const element = card.querySelector(`[data-field="${field}"]`);
  if (!element) return;
  const text = typeof value === "number" ? number.format(value) : value;
  if (element.textContent !== text) element.textContent = text;
}

async function refresh() {
  const response = await fetch("/", { headers: { accept: "application/json" } });
  const overview = await response.json();
  const cards = [...document.querySelectorAll("[data-model]")];
  if (cards.length !== overview.models.length) return location.reload();
  for (const model of overview.models) {
    const card = cards.find((c) => c.dataset.model === model.name && c.dataset.version === model.version);
    if (!card) return location.reload();
    const state = card.querySelector('[data-field="state"]');
    if (state.textContent !== model.state) return location.reload();
    for (const [field, value] of Object.entries(model.statistics ?? {})) show(card, field, value);
  }
  const state = document.getElementById("state");
  state.textContent = overview.ready ? "ready" : "not ready";
  state.className = `pill ${overview.ready ? "ready" : "waiting"}`;
}

function lost() {
  const state = document.getElementById("state");
  state.textContent = "no connection";
  state.className = "pill unavailable";
}

setInterval(() => {
  if (document.visibilityState === "visible") refresh().catch(lost);
}, 2000);
