// The filter's controls. They say what is set, and how much of it there is.

const controls = {};

/** `changed` is called with whether the text changed. */
function buildControls(changed) {
  const set = (name, value) => {
    wanted[name] = value;
    changed(name === "text");
  };
  controls.text = make("input", {
    type: "search",
    id: "search",
    placeholder: "Search actions and messages …",
    "aria-label": "Text in actions, arguments, messages and observations",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => set("text", controls.text.value),
  });
  const score = (name, label) =>
    make("input", {
      type: "number",
      step: "any",
      class: "score",
      "aria-label": label,
      placeholder: label.split(" ")[0],
      oninput: (event) => set(name, event.target.value === "" ? null : event.target.valueAsNumber),
    });
  controls.least = score("least", "from score");
  controls.most = score("most", "to score");
  controls.low = toggle("below threshold", () => set("low", !wanted.low));
  controls.stands = toggle("stands out", () => set("stands", !wanted.stands), "Runs in which a step stands out");
  controls.outcomes = group("Outcome", counts.outcomes, "outcomes", changed);
  controls.decisions = group("Decision", counts.decisions, "decisions", changed);
  controls.tools = menu(changed);
  controls.clear = button(
    "Clear",
    () => {
      Object.assign(wanted, anything());
      changed(true);
    },
    { kind: "small quiet" },
  );
  controls.count = make("output", { class: "count", id: "count", "aria-live": "polite" });
  byId("filters").append(
    controls.text,
    controls.outcomes,
    controls.decisions,
    controls.tools,
    make("span", { class: "range" }, controls.least, "–", controls.most),
    controls.low,
    controls.stands,
    controls.clear,
    controls.count,
  );
}

function toggle(words, onclick, hint = null) {
  return button(words, onclick, { kind: "chip", hint, "aria-pressed": "false" });
}

/** One toggle for each value. */
function group(label, found, name, changed) {
  const chips = [...found]
    .sort((one, other) => other[1] - one[1])
    .slice(0, 8)
    .map(([value, count]) => {
      const chip = toggle(
        [quoted(value || "unfinished", null, 24), " ", make("small", {}, count.toLocaleString("en"))],
        () => {
          flip(wanted[name], value);
          changed(false);
        },
      );
      chip.value = value;
      return chip;
    });
  return make("span", { class: "chips", role: "group", "aria-label": label, hidden: found.size < 2 }, chips);
}

/** The tools, behind a button, for there may be many. */
function menu(changed) {
  const named = [...counts.tools].sort((one, other) => other[1] - one[1]);
  const boxes = named.slice(0, 400).map(([value, count]) => {
    const box = make("input", {
      type: "checkbox",
      onchange: () => {
        flip(wanted.tools, value);
        changed(false);
      },
    });
    box.name = "tool";
    box.dataset.tool = value;
    return make("label", {}, box, quoted(value || "none", null, 60), make("small", {}, count.toLocaleString("en")));
  });
  const more = named.length - boxes.length;
  const box = make(
    "details",
    {
      class: "menu",
      id: "tools-menu",
      onkeydown: (event) => {
        if (event.key !== "Escape" || !box.open) return;
        event.stopPropagation();
        box.open = false;
        box.firstChild.focus();
      },
    },
    make("summary", { class: "chip" }, "Tools"),
    make(
      "div",
      { class: "choices", role: "group", "aria-label": "Tools" },
      boxes,
      more > 0 ? make("p", { class: "notice" }, `${more.toLocaleString("en")} rarer ones: search for their names.`) : "",
    ),
  );
  document.addEventListener("pointerdown", (event) => {
    if (!box.contains(event.target)) box.open = false;
  });
  return box;
}

function flip(set, value) {
  if (!set.delete(value)) set.add(value);
}

/** Shows what is set. */
function showControls() {
  const text = (input, value) => {
    if (document.activeElement !== input || input.value === "") input.value = value ?? "";
  };
  text(controls.text, wanted.text);
  if (!wanted.text && controls.text.value && document.activeElement !== controls.text) controls.text.value = "";
  text(controls.least, wanted.least);
  text(controls.most, wanted.most);
  controls.low.setAttribute("aria-pressed", wanted.low);
  controls.stands.setAttribute("aria-pressed", wanted.stands);
  for (const name of ["outcomes", "decisions"]) {
    for (const chip of controls[name].children) chip.setAttribute("aria-pressed", wanted[name].has(chip.value));
  }
  for (const box of controls.tools.querySelectorAll("input")) box.checked = wanted.tools.has(box.dataset.tool);
  controls.tools.firstChild.textContent = wanted.tools.size ? `Tools: ${wanted.tools.size}` : "Tools";
  controls.tools.classList.toggle("set", wanted.tools.size > 0);
  controls.clear.hidden = !filters();
}

/** Says how much matches; `share` of the runs has been searched. */
function showCount(share) {
  const of = (found, whole, word) =>
    found === whole ? counted(whole, word) : `${found.toLocaleString("en")} of ${counted(whole, word)}`;
  const words = filters() ? `${of(matches.runs.length, runs.length, "run")}, ${of(matches.steps, total, "step")}` : "";
  controls.count.toggleAttribute("data-searching", share < 1);
  controls.count.textContent = share < 1 ? `searching, ${Math.round(100 * share)} % … ${words}` : words;
}
