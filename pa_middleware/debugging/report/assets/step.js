// One step: what was decided and why, what was proposed, what came of it, and what the model knew.

const APP = all.app ?? "module:name";

/** `changed` is called when the reader's verdict changed. */
function stepView(run, told, place, { changed, go, toggleTokens }) {
  const step = told.steps[place];
  const at = first[run.place] + place;
  const rank = run.suspects.findIndex(([suspect]) => suspect === place);
  const threshold = column.threshold[at];
  const score = column.score[at];
  const against =
    Number.isNaN(threshold) || Number.isNaN(score)
      ? ""
      : `, ${isLow(at) ? signed(threshold - score).slice(1) : "not"} below its threshold ${signed(threshold)}`;
  const verdict = verdictForm(run, place, changed);
  return [
    make(
      "header",
      { class: "step-head" },
      make("h2", { tabindex: "-1" }, `Step ${numberOf(run, place)}`),
      badge(decisionAt(at), step.mode === "shadow"),
      step.reason ? make("span", { class: "faint" }, quoted(step.reason.replaceAll("_", " "))) : "",
      make(
        "span",
        { class: "buttons" },
        button("Tokens", toggleTokens, {
          kind: "chip",
          hint: "Shade tokens by log-ratio (t)",
          "aria-pressed": String(shown.tokens),
        }),
        button("Copy link", () => copy(link(place), "Link"), { kind: "chip", hint: "Permalink of this step" }),
        run.conversation && !run.conversation.includes("\0") // which no command can be given
          ? button("Copy replay", () => copy(replayOf(run, place), "Replay command"), {
              kind: "chip",
              hint: visible(replayOf(run, place)),
            })
          : "",
        verdict.open
          ? button("⚑ Mark", verdict.open, { kind: "chip", hint: "Mark this step as the decisive one" })
          : "",
        button("↑", () => go(-1), { kind: "chip", hint: "Step before (k)", "aria-label": "Step before" }),
        button("↓", () => go(1), { kind: "chip", hint: "Next step (j)", "aria-label": "Next step" }),
      ),
    ),
    make(
      "p",
      { class: "gist" },
      make("b", { class: isLow(at) ? "low" : "" }, `Score ${signed(score) || "none"}`),
      against,
      rank >= 0 && (run.stands || rank < 3) ? `; suspect ${rank + 1} of this run` : "",
      step.chance === undefined ? "" : `; success after it ${Math.round(100 * step.chance)} %`,
    ),
    step.mode === "shadow" && !["pass", ""].includes(decisionAt(at))
      ? make("p", { class: "notice" }, "Shadow mode: this is what would have been decided; the action ran unchanged.")
      : "",
    step.error ? make("p", { class: "notice bad" }, "Scoring failed: ", quoted(step.error)) : "",
    decisionAt(at)
      ? ""
      : make("p", { class: "notice" }, "This step has no end in the trace: its process died, or an exception left it."),
    verdict,
    candidatesOf(told, run, place, shown.tokens),
    reviewOf(step),
    observationOf(told, place),
    contextOf(told, place),
    make(
      "section",
      { class: "part" },
      later("All attributes", () => attributesOf(told, step)),
    ),
  ];
}

/** What a human answered, call by call. */
function reviewOf(step) {
  if (!step.review?.length) return "";
  return make(
    "section",
    { class: "part" },
    make("h3", {}, "A human said"),
    make(
      "ul",
      { class: "review" },
      step.review.map((answer, place) =>
        make(
          "li",
          {},
          quoted(answer, "badge other", 60),
          " ",
          step.calls?.[place] ? quoted(step.calls[place], "mono faint", 80) : "",
        ),
      ),
    ),
  );
}

/** Everything the spans of the step say. */
function attributesOf(told, step) {
  const [ofStep, ofCandidates] = told.common;
  const span = (words, one, common) =>
    one.attributes === undefined
      ? make("p", { class: "notice" }, `${words}: no attributes.`)
      : make(
          "div",
          {},
          make("h4", {}, `${words} `, quoted(one.span ?? "", "mono faint", 60)),
          attributeTable({ ...common, ...one.attributes }),
        );
  return make(
    "div",
    {},
    make(
      "p",
      { class: "faint" },
      `started ${moment(step.start)}`,
      step.took === undefined ? "" : `, took ${lasting(step.took)}`,
      step.attempt ? `, attempt ${step.attempt}` : "",
    ),
    span("Step", step, ofStep),
    step.candidates.map((each) => span(`Candidate #${each.index}`, each, ofCandidates)),
  );
}

function attributeTable(attributes) {
  const names = Object.keys(attributes).sort();
  return make(
    "table",
    { class: "attributes" },
    make(
      "tbody",
      {},
      names.map((name) => {
        const value = attributes[name];
        const words =
          value === null
            ? make("span", { class: "faint" }, "shown above")
            : block(typeof value === "string" ? value : JSON.stringify(value), "mono");
        return make("tr", {}, make("th", { scope: "row" }, quoted(name, null, 200)), make("td", {}, words));
      }),
    ),
  );
}

/** The command that draws this step again. */
function replayOf(run, place) {
  const [id, from] = [run.conversation, `--from ${numberOf(run, place)}`];
  if (id.startsWith("-")) return `pa-middleware replay --app ${forShell(APP)} ${from} -- ${forShell(id)}`;
  return `pa-middleware replay ${forShell(id)} --app ${forShell(APP)} ${from}`;
}

/** A word that a POSIX shell takes as it is; what cannot be seen is written as its code, for bash, zsh and ksh. */
function forShell(word) {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  if (word.search(HIDDEN) < 0) return `'${word.replaceAll("'", "'\\''")}'`;
  const escaped = (char) => code(char).replace(/^\\x([89a-f])/, "\\u00$1"); // \x80 and up would be bytes, not characters
  return `$'${word.replace(/[\\']/g, "\\$&").replace(HIDDEN, escaped)}'`;
}
