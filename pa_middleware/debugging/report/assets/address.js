// The address of what is shown: #run=...&step=...&compare=... and the filter. Whoever opens it sees the same.

/** What is open: a run or the list, a step of it by its place, and the run beside it. */
const shown = { run: null, step: 0, compare: null, tokens: false };

function address({ step = shown.step } = {}) {
  const told = new URLSearchParams();
  if (shown.run) {
    told.set("run", shown.run.id);
    told.set("step", step);
    if (shown.compare) told.set("compare", shown.compare.id);
    if (shown.tokens) told.set("tokens", "1");
  }
  if (wanted.text) told.set("text", wanted.text);
  if (wanted.least !== null) told.set("least", wanted.least);
  if (wanted.most !== null) told.set("most", wanted.most);
  if (wanted.low) told.set("low", "1");
  if (wanted.stands) told.set("stands", "1");
  for (const name of ["decisions", "tools", "outcomes"]) for (const each of wanted[name]) told.append(name, each);
  if (wanted.sort !== "lowest") told.set("sort", wanted.sort);
  if (wanted.descending) told.set("descending", "1");
  const text = told.toString();
  return text ? `#${text}` : "#";
}

/** Takes over what an address says; what it names wrongly is left out, and said. */
function follow(text) {
  forget();
  const told = new URLSearchParams(text.replace(/^#/, ""));
  const number = (name) => {
    const value = parseFloat(told.get(name));
    return Number.isFinite(value) ? value : null;
  };
  const named = (name) => (told.has(name) ? (runs[places.get(told.get(name))] ?? null) : null);
  shown.run = named("run");
  shown.compare = shown.run && named("compare");
  shown.tokens = told.has("tokens");
  const last = shown.run ? Math.max(shown.run.length - 1, 0) : 0;
  shown.step = Math.min(Math.max(Math.trunc(number("step") ?? suspectOf(shown.run)), 0), last);
  if (told.has("run") && !shown.run) say("The run of this link is not in this report.");
  wanted.text = told.get("text") ?? "";
  wanted.least = number("least");
  wanted.most = number("most");
  wanted.low = told.has("low");
  wanted.stands = told.has("stands");
  for (const name of ["decisions", "tools", "outcomes"]) wanted[name] = new Set(told.getAll(name));
  wanted.sort = Object.hasOwn(KEYS, told.get("sort") ?? "") ? told.get("sort") : "lowest";
  wanted.descending = told.has("descending");
}

/** Milliseconds in which the address is written once at most: browsers refuse to have it written all the time. */
const WRITE = 400;
const unwritten = { address: null, timer: null };

/** Writes the address: `anew` as a page that the browser's back button comes back from, else soon. */
function remember(anew) {
  if (anew) {
    writeNow();
    write("pushState", address());
  } else {
    unwritten.address = address();
    unwritten.timer ??= setTimeout(writeNow, WRITE);
  }
}

function writeNow() {
  if (unwritten.address !== null) write("replaceState", unwritten.address);
  forget();
}

function forget() {
  clearTimeout(unwritten.timer);
  Object.assign(unwritten, { address: null, timer: null });
}

function write(how, address) {
  try {
    history[how](null, "", address);
  } catch {
    /* a page in a sandbox may have no address to write; links are copied all the same */
  }
}

/** The step a run is opened at. */
function suspectOf(run) {
  return run?.suspects[0]?.[0] ?? 0;
}

/** The permalink of a step. */
function link(step) {
  return location.href.split("#")[0] + address({ step });
}
