// Keeps a page live. The controller says that something has changed; the page asks for itself again, and what
// differs is put in place of what was shown. Nothing here is needed to read a page.

const live = document.getElementById("live");
let waiting = 0;
let refreshing = false;
let again = false;

// How long ago a time was, beside which the time itself stays to be read.
function age(then) {
  const seconds = Math.round((Date.now() - then) / 1000);
  const past = Math.abs(seconds);
  const [value, unit] =
    past < 60 ? [past, "s"] : past < 3600 ? [Math.floor(past / 60), "min"] :
    past < 86400 ? [Math.floor(past / 3600), "h"] : [Math.floor(past / 86400), "d"];
  return seconds < 0 ? `in ${value} ${unit}` : past < 2 ? "now" : `${value} ${unit} ago`;
}

function tellAges(within = document) {
  for (const time of within.querySelectorAll("time")) {
    const at = Date.parse(time.dateTime);
    if (Number.isNaN(at)) continue;
    if (!time.title) time.title = time.textContent + " UTC";
    const text = age(at);
    if (time.textContent !== text) time.textContent = text;
  }
}

// What the server last sent for each live part: what is shown differs from it by ages alone.
const shown = new Map();
for (const part of document.querySelectorAll("[data-live]")) shown.set(part.id, part.innerHTML);
tellAges();
setInterval(tellAges, 1000);

async function refresh() {
  // The answer to a form is not to be asked for again.
  if (shown.size === 0) return;
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = true;
  try {
    const answer = await fetch(location.href, { headers: { "x-aio-fragment": "1" }, cache: "no-store" });
    if (answer.status === 401) {
      location.reload();
      return;
    }
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const next of page.querySelectorAll("[data-live]")) {
      const now = document.getElementById(next.id);
      if (!now || shown.get(next.id) === next.innerHTML) continue;
      // Somebody who types or has a menu open there is not disturbed.
      if (now.querySelector("input:focus, textarea:focus, select:focus, details[open]")) continue;
      shown.set(next.id, next.innerHTML);
      const focused = now.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      now.replaceChildren(...[...next.childNodes].map((node) => document.adoptNode(node)));
      tellAges(now);
      if (focused) now.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
    }
    document.documentElement.dataset.refreshed = String(Number(document.documentElement.dataset.refreshed ?? 0) + 1);
  } catch {
    // The socket says when the controller is back.
  } finally {
    refreshing = false;
    if (again) {
      again = false;
      refresh();
    }
  }
}

function say(text, kind) {
  live.hidden = false;
  live.textContent = text;
  live.className = `live ${kind}`;
  document.documentElement.dataset.live = kind;
}

function connect() {
  const address = new URL("ui/live", document.baseURI);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address, "aio.pages.v1");
  let opened = false;
  socket.onopen = () => {
    // Whatever happened while nobody listened.
    if (waiting > 0) refresh();
    opened = true;
    waiting = 0;
    say("live", "on");
  };
  socket.onmessage = () => {
    if (!document.hidden) refresh();
    else again = true;
  };
  socket.onclose = (event) => {
    say("not live", "off");
    if (event.code === 4401) {
      location.reload();
      return;
    }
    waiting = Math.min(opened ? 250 : Math.max(waiting * 2, 250), 10000);
    setTimeout(connect, waiting * (0.5 + Math.random() / 2));
    // A refused upgrade has no status that a script may read; the page itself says whether the session goes on.
    if (!opened && waiting >= 2000) refresh();
  };
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && again) {
    again = false;
    refresh();
  }
});

for (const part of document.querySelectorAll("[data-every]")) {
  setInterval(() => document.hidden || refresh(), Number(part.dataset.every) * 1000);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
});

// "/" goes to the search, as in most lists.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select")) return;
  const search = document.querySelector("input[type=search]");
  if (search) {
    event.preventDefault();
    search.focus();
  }
});

for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
if (live) connect();
