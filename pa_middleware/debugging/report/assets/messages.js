// What the model was shown at a step, what is new in it, and what its tools answered.

/** Messages that are listed until more are asked for. */
const RECENT = 100;

function messageBox(told, number, { fresh = false, open = true } = {}) {
  const message = told.messages[number];
  const calls = (message.calls ?? []).map(([id, name, given]) => callBox(name, given, id));
  const role = message.role || "lost";
  const head = [
    make("bdi", { class: `role ${role === "lost" ? "faint" : ""}` }, pieces(whole(role, 60))),
    fresh ? make("span", { class: "new" }, "new") : "",
    message.answers ? make("span", { class: "faint" }, "answers ", quoted(message.answers, "mono", 60)) : "",
  ];
  const body = () => [
    message.reasoning ? make("details", {}, make("summary", {}, "Reasoning"), block(message.reasoning)) : "",
    message.text ? block(message.text) : "",
    calls,
    message.role ? "" : make("p", { class: "notice" }, "No span of the trace spells this message out."),
  ];
  if (open)
    return make(
      "div",
      { class: `message${fresh ? " fresh" : ""}` },
      make("div", { class: "message-head" }, head),
      body(),
    );
  const first = visible(whole(messageText(message), 200).replace(/\s+/g, " "));
  const box = make(
    "details",
    { class: `message${fresh ? " fresh" : ""}` },
    make("summary", {}, head, " ", make("bdi", { class: "faint preview" }, first)),
  );
  box.addEventListener(
    "toggle",
    () => {
      if (box.children.length < 2) box.append(...body().flat().filter(Boolean));
    },
    { once: true },
  );
  return box;
}

/** A tool call: its name and its arguments in lines. */
function callBox(name, given, id = null) {
  return make(
    "div",
    { class: "call" },
    quoted(name, "tool", 200),
    id ? make("span", { class: "faint" }, " ", quoted(id, "mono", 60)) : "",
    given !== undefined && given !== null ? block(laidOut(given), "code") : "",
  );
}

/** The context: new messages open, the older ones to be opened. */
function contextOf(told, place) {
  const step = told.steps[place];
  const { now, fresh, gone } = changes(told.steps, place);
  if (!now.length) {
    return make(
      "section",
      { class: "part" },
      make("h3", {}, "What the model saw"),
      make("p", { class: "notice" }, notRecorded(told)),
    );
  }
  const added = fresh.filter(Boolean).length;
  const heads = [
    counted(now.length, "message"),
    place ? `${added} new since the step before` : "the first step",
    gone ? `${gone} no longer shown` : "",
  ]
    .filter(Boolean)
    .join(", ");
  const shownFrom = Math.max(0, now.length - RECENT);
  const box = make("div", { class: "messages" });
  const add = (from, to) =>
    now
      .slice(from, to)
      .map((number, at) =>
        messageBox(told, number, { fresh: fresh[from + at], open: fresh[from + at] || (!place && now.length < 4) }),
      );
  if (shownFrom) {
    const more = button(`Show ${counted(shownFrom, "older message")}`, () => more.replaceWith(...add(0, shownFrom)), {
      kind: "small",
    });
    box.append(more);
  }
  box.append(...add(shownFrom, now.length));
  return make(
    "section",
    { class: "part" },
    make("h3", {}, "What the model saw ", make("span", { class: "faint" }, heads)),
    box,
    step.tools === undefined
      ? ""
      : later("Tool definitions", () => block(laidOut(told.definitions[step.tools]), "code")),
  );
}

function notRecorded(told) {
  return told.messages.length
    ? "Not recorded of this step."
    : "Not recorded: messages are content, and content capture was off.";
}

/** What came of a step: its tools' answers as a later step was shown them, else what the next step was newly shown. */
function observationOf(told, place) {
  const { calls = [], answers = [] } = told.steps[place];
  const part = (words, ...content) => make("section", { class: "part" }, make("h3", {}, words), content);
  const note = (...words) => make("p", { class: "notice" }, words);
  if (answers.length) {
    const found = new Map(answers);
    return part(
      "Observation",
      calls.map((id) =>
        found.has(id)
          ? messageBox(told, found.get(id))
          : note("No later step was shown an answer to ", quoted(id, "mono", 60), "."),
      ),
    );
  }
  if (place + 1 === told.steps.length) return part("Observation", note("The run ends here."));
  const { now, fresh } = changes(told.steps, place + 1);
  if (!now.length) return part("Observation", note(notRecorded(told)));
  const added = now.filter((_, at) => fresh[at]);
  return part(
    "What the next step was newly shown",
    added.length ? added.map((number) => messageBox(told, number)) : note("Nothing new: all its messages were shown before."),
  );
}

/** Something that is made when it is opened. */
function later(words, content) {
  const box = make("details", {}, make("summary", {}, words));
  box.addEventListener("toggle", () => box.append(content()), { once: true });
  return box;
}
