"use strict";
(() => {
  const live = document.getElementById("live");
  if (!live) return;
  let timer = 0, busy = false, again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    if (live.querySelector(".filling")) return;
    busy = true;
    try {
      const answer = await fetch(location.pathname, { headers: { "X-Fragment": "1" } });
      if (!answer.headers.has("X-Fragment")) { location.reload(); return; }
      const html = await answer.text();
      const inside = live.contains(document.activeElement) && document.activeElement.id;
      if (html !== live.dataset.last) {
        live.innerHTML = html;
        live.dataset.last = html;
        if (inside) document.getElementById(inside)?.focus();
      }
    } catch { /* the hub is away; the event source tries again */ }
    busy = false;
    if (again) { again = false; soon(); }
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(refresh, 150); };
  const source = new EventSource("/events");
  const news = document.getElementById("news");
  source.onmessage = (message) => {
    soon();
    const event = JSON.parse(message.data);
    if (event.kind === "rollout-changed")
      news.textContent = `rollout ${event.rollout} ${event.state}: ${event.reason ?? ""}`;
    if (event.kind === "action-changed" && ["failed", "succeeded"].includes(event.status))
      news.textContent = `${event.device} ${event.status}: ${event.message ?? ""}`;
  };
  let first = true;
  source.onopen = () => { if (!first) soon(); first = false; };
  setInterval(soon, 30000);
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("[data-live]")) return;
    event.preventDefault();
    if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
    await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    refresh();
  });
})();
