// A candidate's tokens, shaded by their log-ratio: which words training made more or less likely.

const SHADES = 5;

/** `by` is the largest log-ratio among the step's candidates, so that their shades compare. */
function heat(each, by) {
  const ratios = each.ratios ?? [];
  if (!ratios.length) {
    return make(
      "p",
      { class: "notice" },
      "Log-ratios of tokens were not recorded; Telemetry(token_log_ratios=True) writes them.",
    );
  }
  const parts = each.texts ?? [];
  const known = parts.length === ratios.length;
  const readout = make("p", { class: "readout", "aria-live": "polite" });
  const tell = (place) =>
    readout.replaceChildren(
      `token ${place}  `,
      known ? quoted(parts[place].replaceAll("\n", "⏎"), "mono", 60) : "",
      `  ${signed(ratios[place], 3)}`,
    );
  const tokens = ratios.map((ratio, place) =>
    make(
      "span",
      {
        class: `token ${shade(ratio, by)}`,
        "data-place": place,
        role: "option",
        tabindex: place ? "-1" : "0",
        dir: "auto",
        title: `${signed(ratio, 3)}`,
        "aria-label": `${known ? visible(parts[place]) : `token ${place}`}, ${signed(ratio, 3)}`,
      },
      known ? pieces(parts[place].replaceAll("\n", "⏎\n"), HIDDEN_IN_BLOCKS) : String(place),
    ),
  );
  const box = make(
    "div",
    {
      class: known ? "tokens" : "tokens unnamed",
      role: "listbox",
      "aria-label": "Tokens by log-ratio",
      "aria-orientation": "horizontal",
    },
    tokens,
  );
  const placeOf = (event) => Number(event.target.closest(".token")?.dataset.place ?? -1);
  box.addEventListener("pointerover", (event) => {
    if (placeOf(event) >= 0) tell(placeOf(event));
  });
  box.addEventListener("focusin", (event) => {
    if (placeOf(event) >= 0) tell(placeOf(event));
  });
  box.addEventListener("keydown", (event) => {
    const to = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = to && tokens[placeOf(event) + to];
    if (!next) return;
    event.preventDefault();
    event.stopPropagation();
    event.target.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  const lowest = ratios.reduce((least, ratio, place) => (ratio < ratios[least] ? place : least), 0);
  tell(lowest);
  const cut = each.tokens > ratios.length;
  return make(
    "div",
    { class: "heat" },
    box,
    readout,
    known
      ? ""
      : make("p", { class: "notice" }, "The texts of the tokens were not recorded; content capture writes them."),
    cut
      ? make(
          "p",
          { class: "notice" },
          `The first ${ratios.length.toLocaleString("en")} of ${counted(each.tokens, "token")} were recorded.`,
        )
      : "",
  );
}

function shade(ratio, by) {
  const size = Math.min(SHADES, Math.ceil((SHADES * Math.abs(ratio)) / by - 0.5));
  return size <= 0 ? "even" : `${ratio < 0 ? "less" : "more"}-${size}`;
}

/** What the shades mean. */
function legend(by) {
  const shades = [];
  for (let size = -SHADES; size <= SHADES; size++)
    shades.push(make("span", { class: `token ${size ? `${size < 0 ? "less" : "more"}-${Math.abs(size)}` : "even"}` }));
  return make(
    "p",
    { class: "legend" },
    `less likely by training ${signed(-by)} `,
    make("span", { class: "shades", "aria-hidden": "true" }, shades),
    ` ${signed(by)} more likely (nats)`,
  );
}

function largestRatio(candidates) {
  let most = 0.01;
  for (const each of candidates) for (const ratio of each.ratios ?? []) most = Math.max(most, Math.abs(ratio));
  return most;
}
