// The page of one run: its suspects and its chart, its steps on the left, the step that is open on the right.

const page = { run: null, told: null, list: null, chart: null, detail: null };

/** Shows the run that is open; what stands already is kept. `act` holds what its buttons do. */
async function showRun(act) {
  const { run } = shown;
  const told = await detailsOf(run.place);
  if (shown.run !== run) return;
  if (page.run !== run) {
    const { activeElement: focused, body } = document;
    redrawn(byId("run"), () => buildRun(run, told, act));
    if (focused === body || byId("overview").contains(focused)) page.list.box.focus({ preventScroll: true });
  }
  const at = matches.runs.indexOf(run.place);
  page.position.textContent = at < 0 ? "not in the filter" : `${at + 1} of ${matches.runs.length.toLocaleString("en")}`;
  page.section.classList.toggle("comparing", shown.compare !== null);
  if (shown.compare) {
    const other = shown.compare === run ? null : shown.compare;
    const key = `${run.place} ${other?.place ?? ""}`;
    if (page.compared !== key) {
      page.compared = key;
      const content = await compareView(run, other, act);
      if (page.compared !== key) return;
      page.compare.replaceChildren(...content.flat().filter(Boolean));
    }
  } else {
    page.compared = null;
  }
  page.list.show(run.length, shown.step);
  page.list.reveal(shown.step);
  const key = `${shown.step} ${shown.tokens}`;
  if (page.key === key) return;
  page.key = key;
  page.chart.redraw(shown.step);
  drawStep(act);
}

function drawStep(act) {
  const { run, told, detail } = page;
  const content = run.length
    ? stepView(run, told, shown.step, {
        ...act,
        changed: () => {
          act.verdict();
          page.list.draw();
          drawStep(act);
        },
      })
    : [make("p", { class: "notice" }, "This run has no steps.")];
  redrawn(detail, () => detail.replaceChildren(...content.flat().filter(Boolean)));
  detail.scrollTop = 0;
}

function buildRun(run, told, act) {
  Object.assign(page, { run, told, key: null, compared: null });
  page.list = stepList(run, told, act.step);
  page.chart = chart(run, shown.step, act.step);
  page.detail = make("div", { class: "detail", id: "detail", role: "region", "aria-label": "Step" });
  page.compare = make("div", { class: "compare-place", id: "compare", role: "region", "aria-label": "Comparison" });
  page.position = make("span", { class: "faint" });
  page.section = byId("run");
  page.section.replaceChildren(
    make(
      "header",
      { class: "run-head" },
      button("← Runs", act.back, { kind: "chip", hint: "Back to the list (u)" }),
      make("h2", {}, quoted(nameOf(run), "mono", 200)),
      make(
        "span",
        { class: `outcome-word ${outcomeOf(run)}` },
        outcomeOf(run) === "unknown" ? "outcome unknown" : outcomeOf(run),
      ),
      run.task !== null ? make("span", { class: "faint" }, "task ", quoted(run.task)) : "",
      run.agent ? make("span", { class: "faint" }, "agent ", quoted(run.agent)) : "",
      run.conversation ? make("span", { class: "faint trace" }, "trace ", quoted(run.trace, "mono", 64)) : "",
      make(
        "span",
        { class: "faint" },
        [counted(run.length, "step"), lasting(run.duration), moment(run.start)].filter(Boolean).join(" · "),
      ),
      run.shadow
        ? make("span", { class: "badge other", title: "Decided and recorded, nothing changed" }, "shadow")
        : "",
      make(
        "span",
        { class: "buttons" },
        page.position,
        button("‹", () => act.run(-1), { kind: "chip", hint: "Run before (p)", "aria-label": "Run before" }),
        button("›", () => act.run(1), { kind: "chip", hint: "Next run (n)", "aria-label": "Next run" }),
        button("Compare", act.compare, { kind: "chip", hint: "Beside another run of the task (c)" }),
      ),
    ),
    page.compare,
    make(
      "div",
      { class: "columns" },
      make("div", { class: "left" }, suspects(run, act), page.chart, page.list.box),
      page.detail,
    ),
  );
}

/** The ranked suspects, each a button that goes there; and whether the first stands out. */
function suspects(run, act) {
  const most = run.stands ? 5 : 3;
  const buttons = run.suspects
    .slice(0, most)
    .map(([step, value], rank) =>
      button(
        [
          make("span", { class: run.stands && !rank ? "rank-mark" : "rank-mark faint" }, String(rank + 1)),
          ` step ${numberOf(run, step)} `,
          make("span", { class: "faint" }, all.rule === "first_below" ? signed(run.score[step]) : signed(value)),
        ],
        () => act.step(step),
        { kind: "suspect-button" },
      ),
    );
  return make(
    "div",
    { class: "suspects" },
    make(
      "p",
      {},
      make("b", {}, run.stands ? "Suspects" : "No step stands out"),
      " ",
      make("span", { class: "faint" }, quoted(run.why.replace(/^no step stands out:?\s*/i, ""))),
      run.resamples === null
        ? ""
        : make(
            "span",
            { class: "resamples", title: RESAMPLES },
            ` · first in ${Math.round(100 * run.resamples)} % of resamples`,
          ),
    ),
    buttons.length
      ? make(
          "div",
          { class: "suspect-buttons" },
          run.stands ? "" : make("span", { class: "faint" }, `by ${all.rule.replaceAll("_", " ")}: `),
          buttons,
        )
      : "",
  );
}
