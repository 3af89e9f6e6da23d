// What a human says: which step was decisive, and why. Kept in this browser, and exported as lines of JSON.

const STORE = "pa-middleware-report";

/** localStorage may be absent or refuse; then things are kept until the page is closed. */
const store = {
  memory: new Map(),
  get(name) {
    try {
      return localStorage.getItem(`${STORE}:${name}`) ?? this.memory.get(name) ?? null;
    } catch {
      return this.memory.get(name) ?? null;
    }
  },
  set(name, value) {
    this.memory.set(name, value);
    try {
      localStorage.setItem(`${STORE}:${name}`, value);
    } catch {
      /* kept in memory */
    }
  },
};

/** Verdicts by the run's id: { step, reason }, the step by its number. */
const verdicts = (() => {
  try {
    const told = Object.entries(JSON.parse(store.get("verdicts") ?? "{}"));
    return new Map(told.filter(([, each]) => Number.isInteger(each?.step) && typeof each.reason === "string"));
  } catch {
    return new Map();
  }
})();

const verdictOf = (run) => verdicts.get(run.id) ?? null;

function setVerdict(run, verdict) {
  if (verdict) verdicts.set(run.id, verdict);
  else verdicts.delete(run.id);
  store.set("verdicts", JSON.stringify(Object.fromEntries(verdicts)));
}

/** Verdicts on runs of this report, in the report's order. */
const verdictsHere = () => runs.filter(verdictOf).map((run) => ({ run: run.id, ...verdictOf(run) }));

function exportVerdicts() {
  const lines = verdictsHere()
    .map(({ run, step, reason }) => `${JSON.stringify({ run, step, reason })}\n`)
    .join("");
  const url = URL.createObjectURL(new Blob([lines], { type: "application/jsonl" }));
  make("a", { href: url, download: "verdicts.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** The form beside a step: mark it, say why, take it back. */
function verdictForm(run, step, changed) {
  const mine = verdictOf(run);
  const number = numberOf(run, step);
  if (mine && mine.step === number) {
    return make(
      "div",
      { class: "verdict mine" },
      make("span", { class: "flag", "aria-hidden": "true" }, "⚑"),
      make("span", {}, "You marked this step as decisive", mine.reason ? [": ", quoted(mine.reason)] : "."),
      button(
        "Take back",
        () => {
          setVerdict(run, null);
          changed();
        },
        { kind: "small" },
      ),
    );
  }
  const reason = make("input", {
    type: "text",
    id: "reason",
    maxlength: 2000,
    placeholder: "Why? (optional)",
    "aria-label": "Why this step is decisive",
  });
  const form = make(
    "form",
    {
      class: "verdict",
      hidden: true,
      onsubmit: (event) => {
        event.preventDefault();
        setVerdict(run, { step: number, reason: reason.value.trim() });
        changed();
      },
    },
    reason,
    make("button", { class: "small" }, mine ? `Mark this instead of step ${mine.step}` : "Mark as decisive"),
  );
  form.open = () => {
    form.hidden = !form.hidden;
    if (!form.hidden) reason.focus();
  };
  return form;
}
