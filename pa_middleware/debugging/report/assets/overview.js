// The list of runs.

const RESAMPLES =
  "Share of resamples of the steps' tokens in which the first suspect stays first. " +
  "It says on how many tokens the suspicion rests; it is no probability of being right.";
const COLUMNS = [
  ["outcome", "Outcome", "", "outcome"],
  ["name", "Run", "", "name"],
  [null, "Score of each step", "wide", "scores"],
  ["length", "Steps", "right", "steps"],
  ["lowest", "Lowest", "right", "lowest"],
  ["margin", "Suspect", "", "suspect"],
  ["resamples", "Resamples", "right", "resamples", RESAMPLES],
  ["duration", "Took", "right", "took"],
  ["start", "Started", "", "start"],
];

const overview = { list: null, heads: null, empty: null, current: 0 };

/** `open` is called with a run and a step; `sorted` when the order is to change. */
function buildOverview(open, sorted) {
  overview.heads = make(
    "div",
    { class: "heads", role: "row" },
    COLUMNS.map(([key, words, kind, name, hint]) => {
      const head = key
        ? button(
            words,
            () => {
              Object.assign(wanted, { descending: wanted.sort === key && !wanted.descending, sort: key });
              sorted();
            },
            { hint },
          )
        : make("span", {}, words);
      head.dataset.key = key ?? "";
      return make("span", { class: `cell ${name} ${kind}`, role: "columnheader" }, head);
    }),
  );
  overview.list = new VirtualList("Runs", 38, (place) => runRow(runs[matches.runs[place]], open));
  overview.empty = make("p", { class: "notice" });
  byId("overview").append(
    make(
      "div",
      { class: "table" },
      make("div", { role: "table", "aria-label": "Order of the runs" }, overview.heads),
      overview.list.box,
    ),
    overview.empty,
  );
}

function runRow(run, open) {
  const outcome = outcomeOf(run);
  const cell = (name, ...children) => make("span", { class: `cell ${name}` }, children);
  const [suspect] = run.suspects;
  const name = button(
    quoted(nameOf(run), "mono", 120),
    (event) => {
      event.stopPropagation();
      open(run);
    },
    { kind: "name", tabindex: "-1" },
  );
  return make(
    "div",
    { class: "run-row", onclick: () => open(run) },
    cell(
      "outcome",
      outcome === "unknown"
        ? make("span", { class: "faint" }, "–")
        : make("span", { class: `outcome-word ${outcome}` }, outcome),
    ),
    cell(
      "name",
      name,
      run.task !== null ? quoted(run.task, "faint task", 80) : "",
      verdictOf(run) ? make("span", { class: "flag", title: "You marked a step" }, "⚑") : "",
    ),
    cell("scores wide", strip(run)),
    cell(
      "steps right",
      filtersSteps()
        ? make("span", {}, make("b", {}, String(run.found)), make("span", { class: "faint" }, `/${run.length}`))
        : String(run.length),
    ),
    cell("lowest right", signed(run.lowest) || make("span", { class: "faint" }, "none")),
    cell(
      "suspect",
      suspect === undefined
        ? make("span", { class: "faint" }, "none")
        : make(
            "span",
            { class: run.stands ? "stands" : "faint", title: visible(run.why) },
            `step ${numberOf(run, suspect[0])}`,
            run.stands ? make("span", { class: "dot", "aria-label": "stands out" }, "●") : "",
          ),
    ),
    cell(
      "resamples right",
      run.resamples === null ? make("span", { class: "faint" }, "–") : `${Math.round(100 * run.resamples)} %`,
    ),
    cell("took right", lasting(run.duration)),
    cell("start", moment(run.start)),
  );
}

function showOverview() {
  const { list, heads, empty } = overview;
  for (const head of heads.children) {
    const { key } = head.firstChild.dataset;
    const sorts = key === wanted.sort && key !== "";
    head.setAttribute("aria-sort", sorts ? (wanted.descending ? "descending" : "ascending") : "none");
  }
  overview.current = Math.min(overview.current, Math.max(matches.runs.length - 1, 0));
  list.show(matches.runs.length, overview.current);
  empty.hidden = matches.runs.length > 0;
  empty.textContent = runs.length ? "No run matches the filter." : "There is no run in this report.";
}
