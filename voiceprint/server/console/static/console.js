// Sections that load themselves again, and the button that pauses them.

const paused = () => document.documentElement.hasAttribute("data-paused");

async function refresh(section) {
  // A section that holds the focus, or an open part, stays as it is: the reader is using it.
  if (paused() || document.hidden || section.contains(document.activeElement)) return;
  let response;
  try {
    response = await fetch(section.dataset.refresh, { headers: { "X-Console-Refresh": "1" } });
  } catch {
    return; // the connection is away: the next turn tries again
  }
  if (response.status === 401) {
    location.reload(); // to the form to sign in
    return;
  }
  const text = await response.text();
  if (text === section.lastText) return;
  section.lastText = text;
  section.innerHTML = text;
  announce(section);
}

// A screen reader says a running answer when it changes: of a section that is replaced, it would say nothing.
function announce(section) {
  const status = document.querySelector("[data-status]");
  const now = section.querySelector("[data-announce]")?.textContent.replace(/\s+/g, " ").trim() ?? "";
  if (status.textContent !== now) status.textContent = now;
}

for (const section of document.querySelectorAll("[data-refresh]")) {
  setInterval(() => refresh(section), 1000 * Number(section.dataset.every));
}

for (const button of document.querySelectorAll("[data-pause]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const isPaused = document.documentElement.toggleAttribute("data-paused");
    button.textContent = isPaused ? "Resume updates" : "Pause updates";
  });
}
