// Two runs of one task side by side, from the first step at which they act differently.

/** Runs worth standing beside this one: of its task, else of none; those with the other outcome first. */
function others(run) {
  const same = runs.filter((other) => other !== run && run.task !== null && other.task === run.task);
  const rest = same.length ? same : runs.filter((other) => other !== run && run.task === null && other.task === null);
  const opposite = (other) => run.success !== null && other.success === !run.success;
  return rest
    .map((other) => ({ other, rank: (opposite(other) ? 1e9 : 0) + sharedTools(run, other) }))
    .sort((one, two) => two.rank - one.rank)
    .slice(0, 200)
    .map(({ other }) => other);
}

function sharedTools(run, other) {
  let step = 0;
  while (
    step < Math.min(run.length, other.length) &&
    column.action[first[run.place] + step] === column.action[first[other.place] + step]
  )
    step++;
  return step;
}

/** What a step did, for comparison: its tools and, where they were recorded, its arguments or its text. */
function deed(run, told, place, exact) {
  const candidate = chosen(told.steps[place]);
  const tools = toolsAt(first[run.place] + place);
  if (!exact) return JSON.stringify(tools);
  return JSON.stringify([
    tools,
    (candidate?.arguments ?? []).map(sorted),
    candidate?.arguments?.length ? "" : (candidate?.text ?? ""),
  ]);
}

/** JSON with its keys in order, so that equal arguments are equal texts. */
function sorted(json) {
  try {
    const inOrder = (_, value) =>
      value && typeof value === "object" && !Array.isArray(value)
        ? Object.fromEntries(Object.entries(value).sort(([one], [two]) => (one < two ? -1 : 1)))
        : value;
    return JSON.stringify(JSON.parse(json), inOrder);
  } catch {
    return json;
  }
}

function hasContent(told) {
  return told.steps.some((step) => step.candidates.some((each) => each.text !== undefined || each.arguments));
}

async function compareView(run, other, { pick, open, close }) {
  const choice = others(run);
  const head = make("header", { class: "compare-head" }, make("h2", { tabindex: "-1" }, "Compared with"));
  const leave = button("Close", close, { kind: "chip", hint: "Back to the steps (c)" });
  if (!other) {
    head.append(leave);
    return [
      head,
      make(
        "p",
        { class: "notice" },
        run.task === null && choice.length === 0
          ? "There is no other run to compare with."
          : "There is no other run of the same task. Labels with a task say which runs belong together.",
      ),
    ];
  }
  const select = make(
    "select",
    { "aria-label": "Run to compare with", onchange: () => pick(choice[select.selectedIndex]) },
    choice.map((each) =>
      make(
        "option",
        { selected: each === other },
        visible(whole(`${outcomeOf(each)} · ${nameOf(each)} · ${counted(each.length, "step")}`, 120)),
      ),
    ),
  );
  const [mine, yours] = await Promise.all([detailsOf(run.place), detailsOf(other.place)]);
  const exact = hasContent(mine) && hasContent(yours);
  const deeds = [
    [run, mine],
    [other, yours],
  ].map(([one, told]) => told.steps.map((_, place) => deed(one, told, place, exact)));
  const most = Math.max(run.length, other.length);
  let from = 0;
  while (from < most && deeds[0][from] === deeds[1][from]) from++;
  head.append(select, leave);
  const parting = numberOf(from < run.length ? run : other, from);
  const words =
    from === most
      ? "Both runs act alike at every step."
      : from === 0
        ? "From the first step on they act differently."
        : `${counted(from, "step")} alike, then they act differently at step ${parting}.`;
  return [
    head,
    make(
      "p",
      { class: "gist" },
      words,
      run.task === null ? " No task is known; these may be runs of different ones." : "",
    ),
    exact
      ? ""
      : make("p", { class: "notice" }, "Content was not recorded for both, so only the names of tools are compared."),
    from < most ? insight(mine, yours, from, deeds) : "",
    sideBySide([run, mine], [other, yours], from, most, deeds, open),
  ];
}

/** Whether the guard had the other run's action before it and let it go. */
function insight(mine, yours, from, deeds) {
  if (!mine.steps[from] || !yours.steps[from]) return "";
  const wantedDeed = JSON.parse(deeds[1][from]);
  const found = mine.steps[from].candidates.find(
    (each) =>
      each.index !== mine.steps[from].selected &&
      each.tools &&
      each.arguments &&
      JSON.stringify([each.tools, each.arguments.map(sorted), ""]) === JSON.stringify(wantedDeed),
  );
  return found
    ? make(
        "p",
        { class: "notice" },
        `What the other run did there was drawn here too, as candidate #${found.index} with score `,
        `${signed(found.score)}, and not taken.`,
      )
    : "";
}

function sideBySide(left, right, from, most, deeds, open) {
  const side = ([run, told], place) => {
    if (place >= run.length)
      return make("div", { class: "side none faint" }, place === run.length ? `ended: ${outcomeOf(run)}` : "");
    const at = first[run.place] + place;
    return make(
      "div",
      { class: "side" },
      button(`${numberOf(run, place)}`, () => open(run, place), { kind: "number", hint: "Open this step" }),
      make("span", { class: "action" }, actionLine(toolsAt(at), told.steps[place])),
      scoreBar(at),
      make("span", { class: `score right${isLow(at) ? " low" : ""}` }, signed(column.score[at]) || "–"),
      badge(decisionAt(at), told.steps[place].mode === "shadow"),
    );
  };
  const row = (place) =>
    make(
      "div",
      {
        class: `pair${place === from ? " divergence" : ""}${deeds[0][place] === deeds[1][place] ? " alike" : ""}`,
        role: "listitem",
      },
      side(left, place),
      side(right, place),
    );
  const rows = (begin, end) => Array.from({ length: Math.max(0, end - begin) }, (_, at) => row(begin + at));
  const title = ([run]) =>
    make(
      "div",
      { class: "side-title" },
      make("span", { class: `outcome-word ${outcomeOf(run)}` }, outcomeOf(run)),
      " ",
      quoted(nameOf(run), "mono", 80),
    );
  const box = make("div", { class: "pairs", role: "list" });
  const shownAlike = Math.max(0, from - 2);
  if (shownAlike) {
    const more = button(`Show ${counted(shownAlike, "step")} alike`, () => more.replaceWith(...rows(0, shownAlike)), {
      kind: "small",
    });
    box.append(more);
  }
  const end = Math.min(most, from + 300);
  box.append(...rows(shownAlike, end));
  if (end < most) {
    const more = button(`Show ${counted(most - end, "more step")}`, () => more.replaceWith(...rows(end, most)), {
      kind: "small",
    });
    box.append(more);
  }
  return make("div", { class: "compare" }, make("div", { class: "pair titles" }, title(left), title(right)), box);
}
