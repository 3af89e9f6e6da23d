// What is shown follows from what is set: every change ends in `refresh`.

const act = {
  open(run, step = null) {
    Object.assign(shown, { run, step: step ?? opening(run), compare: null });
    refresh({ anew: true });
  },
  step(step) {
    if (step === null || step === undefined) return;
    shown.step = step;
    refresh();
  },
  go(way) {
    const to = nextStep(shown.run, shown.step, way);
    if (to === null) say(way > 0 ? "That was the last step" : "That was the first step");
    else act.step(to);
  },
  run(way) {
    const at = matches.runs.indexOf(shown.run.place);
    const to = at < 0 ? (way > 0 ? 0 : matches.runs.length - 1) : at + way;
    if (matches.runs[to] === undefined) say(way > 0 ? "That was the last run" : "That was the first run");
    else act.open(runs[matches.runs[to]]);
  },
  back() {
    if (shown.run) overview.current = Math.max(matches.runs.indexOf(shown.run.place), 0);
    Object.assign(shown, { run: null, compare: null });
    refresh({ anew: true });
    overview.list.reveal(overview.current);
    overview.list.box.focus({ preventScroll: true });
  },
  compare() {
    shown.compare = shown.compare ? null : (others(shown.run)[0] ?? shown.run);
    refresh();
  },
  pick(other) {
    shown.compare = other;
    refresh();
  },
  close() {
    shown.compare = null;
    refresh();
  },
  suspect() {
    const ranked = shown.run.suspects.map(([step]) => step);
    if (ranked.length) act.step(ranked[(ranked.indexOf(shown.step) + 1) % ranked.length]);
  },
  toggleTokens() {
    shown.tokens = !shown.tokens;
    refresh();
  },
  verdict: showExport,
};

/** The step a run is opened at: its first suspect, if that matches, else the first step that does. */
function opening(run) {
  const suspect = suspectOf(run);
  if (!filtersSteps() || matches.step[first[run.place] + suspect]) return suspect;
  return nextStep(run, -1, 1) ?? suspect;
}

function refresh({ anew = false, follows = false } = {}) {
  if (!follows) remember(anew);
  showControls();
  showCount(searching.share);
  byId("overview").hidden = Boolean(shown.run);
  byId("run").hidden = !shown.run;
  if (!shown.run) return showOverview();
  return showRun(act);
}

function filterAnew(textToo) {
  if (textToo) {
    clearTimeout(filterAnew.timer);
    searching.share = 0;
    filterAnew.timer = setTimeout(
      () =>
        search(wanted.text, () => {
          applyFilter();
          refresh({ follows: true });
        }),
      60,
    );
  }
  applyFilter();
  refresh();
}

function showExport() {
  const { length } = verdictsHere();
  const place = byId("export");
  place.disabled = !length;
  place.textContent = length ? `Export ${counted(length, "verdict")}` : "Export verdicts";
}

function down(way) {
  if (shown.run) return act.go(way);
  overview.current = Math.max(0, Math.min(overview.current + way, matches.runs.length - 1));
  overview.list.show(matches.runs.length, overview.current);
  return overview.list.reveal(overview.current);
}

const inRun = (does) => () => {
  if (shown.run) does();
};

/** Shows what the address says, on opening the page and whenever it changes. */
function arrive() {
  follow(location.hash);
  applyFilter();
  if (wanted.text !== searching.query) filterAnew(true);
  return refresh({ follows: true });
}

function start() {
  if (!window.DecompressionStream) return; // what the page says without its script stays
  const theme = store.get("theme");
  if (theme === "dark" || theme === "light") setTheme(theme);
  const low = column.score.reduce((count, _, at) => count + (isLow(at) ? 1 : 0), 0);
  byId("totals").textContent = [
    counted(runs.length, "run"),
    counted(total, "step"),
    low ? `${low.toLocaleString("en")} below threshold` : "",
  ]
    .filter(Boolean)
    .join(" · ");
  byId("tools").append(
    button("Export verdicts", exportVerdicts, {
      kind: "chip",
      hint: "Steps you marked, as lines of JSON",
      id: "export",
    }),
    button("◐", () => setTheme(dark() ? "light" : "dark"), {
      kind: "chip",
      hint: "Dark or light (d)",
      "aria-label": "Dark or light",
      id: "theme",
    }),
    button("?", () => byId("help").showModal(), { kind: "chip", hint: "Keys (?)", "aria-label": "Keys", id: "keys" }),
  );
  byId("skip").addEventListener("click", () => byId("main").focus());
  buildHelp();
  buildControls(filterAnew);
  buildOverview(act.open, () => {
    applyFilter();
    refresh();
  });
  showExport();
  listen({
    j: () => down(1),
    k: () => down(-1),
    n: inRun(() => act.run(1)),
    p: inRun(() => act.run(-1)),
    s: inRun(act.suspect),
    u: inRun(() => (shown.compare ? act.close() : act.back())),
    c: inRun(act.compare),
    t: inRun(act.toggleTokens),
    d: () => byId("theme").click(),
    "?": () => byId("keys").click(),
    "/": () => {
      controls.text.focus();
      controls.text.select();
    },
    Enter: () => {
      if (!shown.run && matches.runs.length) act.open(runs[matches.runs[overview.current]]);
    },
  });
  window.addEventListener("hashchange", arrive);
  byId("wait").remove();
  arrive();
  document.documentElement.dataset.ready = "yes";
}

start();
