// The keyboard, and the page's light.

const KEYS_HELP = [
  ["j  k", "next, previous step that matches; in the list of runs: down, up"],
  ["↓  ↑", "the same"],
  ["n  p", "next, previous run"],
  ["s", "next suspect"],
  ["Enter", "open the run"],
  ["u  Esc", "back to the runs"],
  ["/", "search"],
  ["t", "shade tokens by log-ratio"],
  ["c", "compare with another run of the task"],
  ["d", "dark or light"],
  ["?", "this help"],
];

/** `act` has a function for each key. */
function listen(act) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { target } = event;
    const writing = target.matches("input, select, textarea") && target.type !== "checkbox";
    if (byId("help").open) return;
    if (writing) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const name = { ArrowDown: "j", ArrowUp: "k", Escape: "u" }[event.key] ?? event.key;
    if (event.key.startsWith("Arrow") && target.closest(".text, .detail, summary")) return;
    if (name === "Enter" && target.closest("button, summary, a, input, [role=option].token")) return;
    if (!Object.hasOwn(act, name)) return;
    event.preventDefault();
    act[name]();
  });
}

function buildHelp() {
  const dialog = byId("help");
  dialog.append(
    make("h2", { id: "help-title" }, "Keys"),
    make(
      "table",
      {},
      make(
        "tbody",
        {},
        KEYS_HELP.map(([key, words]) =>
          make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, words)),
        ),
      ),
    ),
    make(
      "p",
      { class: "faint" },
      "Orange: below the threshold, or less likely by training. Blue: more likely. ⚑: the step you marked.",
    ),
    button("Close", () => dialog.close(), { kind: "chip" }),
  );
}

const dark = () =>
  (document.documentElement.dataset.theme ??
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  store.set("theme", theme);
}
