// The actions that were drawn for a step, side by side: the one decided on and the ones that were not.

function candidatesOf(told, run, place, tokens) {
  const step = told.steps[place];
  const { candidates } = step;
  if (!candidates.length) {
    return make(
      "section",
      { class: "part" },
      make("h3", {}, "Candidates"),
      make("p", { class: "notice" }, "No candidate of this step was recorded."),
    );
  }
  const by = largestRatio(candidates);
  const words = candidates.length === 1 ? "Action" : `${counted(candidates.length, "candidate")}`;
  return make(
    "section",
    { class: "part" },
    make(
      "h3",
      {},
      words,
      make(
        "span",
        { class: "faint" },
        candidates.length > 1 ? "in the order they were drawn" : "",
        candidates.length > 1 && chosen(step) ? `, #${step.selected} chosen` : "",
      ),
    ),
    tokens && candidates.some((each) => each.ratios?.length) ? legend(by) : "",
    make(
      "div",
      { class: `candidates of-${Math.min(candidates.length, 4)}` },
      candidates.map((each) => candidateBox(each, step, tokens ? by : null)),
    ),
  );
}

function candidateBox(each, step, by) {
  const selected = each.index === step.selected;
  const alone = step.candidates.length === 1;
  const told = each.same_as !== undefined && !selected;
  const judged = { pass: "at or above its threshold", fail: "below its threshold" }[each.label] ?? null;
  return make(
    "article",
    { class: `candidate${selected ? " selected" : ""}`, "aria-label": `Candidate ${each.index}` },
    make(
      "header",
      {},
      make("span", { class: "place" }, `#${each.index}`),
      make("b", { class: `score${each.label === "fail" ? " low" : ""}` }, signed(each.score) || "no score"),
      each.label
        ? make("span", { class: `label${judged ? ` ${each.label}` : ""}`, title: judged }, quoted(each.label, null, 40))
        : "",
      alone ? "" : make("span", { class: selected ? "taken" : "faint" }, selected ? "chosen" : "rejected"),
    ),
    each.same_as !== undefined
      ? make("p", { class: "notice" }, `The same action as #${each.same_as}, scored once.`)
      : "",
    each.error ? make("p", { class: "notice bad" }, "Scoring failed: ", quoted(each.error)) : "",
    told ? "" : [actionOf(each), by === null ? "" : heat(each, by), facts(each)],
  );
}

/** What was proposed. */
function actionOf(each) {
  const tools = each.tools ?? [];
  const given = each.arguments ?? [];
  const calls = Array.from({ length: Math.max(tools.length, given.length) }, (_, place) =>
    callBox(tools[place] ?? "?", given[place]),
  );
  const kind = (each.kind ?? "").replaceAll("_", " ");
  return [
    each.reasoning
      ? make(
          "details",
          { class: "reasoning" },
          make("summary", {}, `Reasoning, ${counted(each.reasoning.length, "character")}`),
          block(each.reasoning),
        )
      : "",
    each.text ? block(each.text) : "",
    calls,
    !calls.length && !each.text ? make("p", {}, quoted(kind || "action", "tool")) : "",
    each.text === undefined && !given.length
      ? make("p", { class: "notice" }, "Its text and arguments were not recorded.")
      : "",
  ];
}

/** Its numbers. */
function facts(each) {
  const rows = [
    ["policy log-prob", signed(each.policy)],
    ["reference log-prob", signed(each.reference)],
    ["tokens", each.tokens],
    ["tokens generated", each.generated === each.tokens ? undefined : each.generated],
    ["mean log-ratio", signed(each.mean, 3)],
    [
      "lowest log-ratio",
      each.lowest === undefined
        ? ""
        : `${signed(each.lowest)}${each.lowest_at === undefined ? "" : ` at token ${each.lowest_at}`}`,
    ],
  ].filter(([, value]) => value !== undefined && value !== "");
  return make(
    "dl",
    { class: "facts" },
    rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))),
  );
}
