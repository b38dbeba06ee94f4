// Puts the panels that the server sends in the place of the old ones. Nothing is drawn here, and without this file the
// page loads itself again instead. Contract: focus stays where it was, as far as what had it is still there.
"use strict";

(() => {
  const status = document.getElementById("link");
  const word = document.createElement("span");
  const button = document.createElement("button");
  let paused = false;
  let waiting = {};

  const say = (text) => { if (word.textContent !== text) word.textContent = text; };

  const show = (panels) => {
    for (const [id, html] of Object.entries(panels)) {
      const section = document.getElementById(id);
      if (!section) { location.reload(); return; }
      const had = section.contains(document.activeElement) ? document.activeElement : null;
      const place = had && had.getAttribute("href");
      const scrolled = [...section.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
      section.innerHTML = html;
      section.querySelectorAll(".scroll").forEach((box, i) => { box.scrollLeft = scrolled[i] || 0; });
      if (place) {
        const again = [...section.querySelectorAll("a[href]")].find((a) => a.getAttribute("href") === place);
        if (again) again.focus({ preventScroll: true });
      }
    }
  };

  const follow = () => {
    const source = new EventSource("/live");
    source.addEventListener("open", () => say("live"));
    source.addEventListener("panels", (event) => {
      const panels = JSON.parse(event.data);
      if (paused) Object.assign(waiting, panels); else show(panels);
    });
    source.addEventListener("error", () => {
      say("the monitor does not answer");
      // The browser tries again by itself, unless it was refused.
      if (source.readyState === EventSource.CLOSED) setTimeout(follow, 10000);
    });
  };

  button.type = "button";
  button.textContent = "Pause";
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on" : "Pause";
    if (!paused) { show(waiting); waiting = {}; }
  });
  status.append(word, button);
  say("connecting");
  follow();
})();
