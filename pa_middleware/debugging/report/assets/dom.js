// Elements are made here and nowhere else. Text goes in as text nodes; nothing parses markup.

/** An element with attributes, `on...` listeners and children; children that are null or "" are left out. */
function make(tag, given = {}, ...children) {
  return filled(document.createElement(tag), given, children);
}

/** Likewise for SVG. */
function draw(tag, given = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), given, children);
}

function filled(node, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** A real button; `hint` is its tooltip and, where it has no words, its name. */
function button(words, onclick, { hint = null, kind = "", ...more } = {}) {
  return make("button", { type: "button", class: kind || null, title: hint, onclick, ...more }, words);
}

function byId(id) {
  return document.getElementById(id);
}

/** Draws a place anew; a button in it that has the focus hands it to the one of the same name that follows it. */
function redrawn(place, draw) {
  const nameOf = (each) => each.getAttribute("aria-label") ?? each.textContent;
  const { activeElement } = document;
  const name = activeElement?.matches("button") && place.contains(activeElement) ? nameOf(activeElement) : null;
  draw();
  if (name === null) return;
  [...place.querySelectorAll("button")].find((each) => nameOf(each) === name)?.focus({ preventScroll: true });
}

/** Says something to people and screen readers for a moment. */
function say(words) {
  const place = byId("said");
  place.textContent = words;
  place.classList.add("on");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.classList.remove("on"), 2500);
}

/** Copies text; where the browser does not let us, shows it to be copied by hand. */
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
  } catch {
    window.prompt(`${what}, to be copied by hand:`, text);
  }
}

/** Gives other work its turn. */
function pause() {
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      resolve();
    };
    channel.port2.postMessage(null);
  });
}
