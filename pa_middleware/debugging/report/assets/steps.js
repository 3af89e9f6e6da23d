// The steps of the run that is open.

/** `go` is called with a step. */
function stepList(run, told, go) {
  const by =
    run.score.reduce(
      (most, score, step) =>
        Math.max(most, Math.abs(score ?? 0), Math.abs(column.threshold[first[run.place] + step] || 0)),
      0,
    ) || 1;
  const ranks = new Map(run.suspects.slice(0, 3).map(([step], rank) => [step, rank + 1]));
  const mine = verdictOf(run);
  return new VirtualList("Steps", 30, (step) => {
    const at = first[run.place] + step;
    const rank = ranks.get(step);
    const draws = column.draws[at];
    return make(
      "div",
      { class: `step-row${matches.step[at] || !filters() ? "" : " dim"}`, onclick: () => go(step) },
      make("span", { class: "cell number" }, String(numberOf(run, step))),
      make(
        "span",
        { class: "cell action" },
        rank && (run.stands || rank === 1)
          ? make(
              "span",
              { class: run.stands && rank === 1 ? "rank-mark" : "rank-mark faint", title: `suspect ${rank}`, role: "img", "aria-label": `suspect ${rank}` },
              String(rank),
            )
          : "",
        mine?.step === numberOf(run, step) ? make("span", { class: "flag", title: "You marked this step" }, "⚑") : "",
        actionLine(toolsAt(at), told.steps[step]),
      ),
      make("span", { class: "cell bar" }, scoreBar(at, by)),
      make("span", { class: `cell score right${isLow(at) ? " low" : ""}` }, signed(column.score[at]) || "–"),
      make("span", { class: "cell decision" }, badge(decisionAt(at), told.steps[step].mode === "shadow")),
      make(
        "span",
        { class: "cell draws faint right", title: draws > 1 ? counted(draws, "draw") : null },
        draws > 1 ? `×${draws}` : "",
      ),
    );
  });
}

/** A step's action in one line: its tools with their arguments, or its text. */
function actionLine(tools, step, most = 160) {
  const candidate = chosen(step);
  const given = candidate?.arguments ?? [];
  if (candidate?.tools?.length || (step.calls?.length && tools.length)) {
    return tools.map((name, place) => [
      place ? ", " : "",
      quoted(name, "tool", 60),
      given[place] !== undefined ? [" ", quoted(brief(given[place]), "arguments", most)] : "",
    ]);
  }
  const words = candidate?.text?.trim().split("\n")[0] ?? "";
  return [
    quoted(tools.join(", ").replaceAll("_", " ") || "?", "tool", 60),
    words ? [" ", quoted(words, "arguments", most)] : "",
  ];
}

/** JSON of arguments as people would write them down; what is no JSON object stays as it is. */
function brief(json) {
  if (json.length > 5000) return json;
  try {
    const value = JSON.parse(json);
    if (typeof value !== "object" || value === null || Array.isArray(value)) return json;
    return Object.entries(value)
      .map(([name, each]) => `${name}=${typeof each === "string" ? each : JSON.stringify(each)}`)
      .join(" ");
  } catch {
    return json;
  }
}
