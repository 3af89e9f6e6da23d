// Scores as small bars around zero: below the threshold, acted on by the guard, or fine.

/** The steps of a run in at most so many bars; a bar of several steps is as low as its lowest. */
function bars(run, most) {
  const each = Math.max(1, Math.ceil(run.length / most));
  const found = [];
  for (let step = 0; step < run.length; step += each) {
    const bar = { step, score: NaN, kind: "fine" };
    for (let one = step; one < Math.min(step + each, run.length); one++) {
      const at = first[run.place] + one;
      const score = column.score[at];
      if (isLow(at)) bar.kind = "low";
      else if (bar.kind === "fine" && !["pass", ""].includes(decisionAt(at))) bar.kind = "acted";
      if (!(bar.score <= score) && !Number.isNaN(score)) Object.assign(bar, { score, step: one });
    }
    found.push(bar);
  }
  return found;
}

/** By its square root, so that beside the worst run of all others still show. */
const rooted = (score) => Math.sign(score) * Math.sqrt(Math.abs(clipped(score)));
const clipped = (score, by = scale) => Math.max(-1, Math.min(1, score / by));

/** A run as one strip; a mark under it says where the first suspect is. */
function strip(run) {
  const [wide, height, zero] = [480, 32, 14];
  const most = 160;
  const found = bars(run, most);
  const step = Math.min(14, wide / Math.max(found.length, 1));
  const paths = { fine: "", acted: "", low: "", none: "" };
  found.forEach((bar, at) => {
    const size = Number.isNaN(bar.score) ? 0 : rooted(bar.score) * (bar.score < 0 ? 12 : 13);
    const kind = Number.isNaN(bar.score) ? "none" : bar.kind;
    const tall = Math.max(Math.abs(size), 0.8);
    const top = size < 0 ? zero : zero - tall;
    const width = Math.max(step - 1.5, step * 0.7);
    paths[kind] +=
      `M${(at * step).toFixed(2)} ${top.toFixed(2)}h${width.toFixed(2)}v${tall.toFixed(2)}h${(-width).toFixed(2)}z`;
  });
  const suspect = run.suspects[0]?.[0];
  const group = suspect === undefined ? 0 : Math.floor(suspect / Math.max(1, Math.ceil(run.length / most)));
  const x = (group + 0.5) * step;
  return draw(
    "svg",
    {
      class: "strip",
      viewBox: `0 0 ${wide} ${height}`,
      width: wide,
      height,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    draw("path", { class: "zero", d: `M0 ${zero}h${(found.length * step).toFixed(1)}` }),
    Object.entries(paths)
      .filter(([, d]) => d)
      .map(([kind, d]) => draw("path", { class: kind, d })),
    suspect === undefined
      ? null
      : draw("path", { class: run.stands ? "suspect" : "suspect faint", d: `M${x} 27.5l3.5 4.5h-7z` }),
  );
}

/** The bar of one score in a list, with a mark for its threshold. */
function scoreBar(at, by = scale) {
  const [half, height] = [44, 12];
  const score = column.score[at];
  const threshold = column.threshold[at];
  const size = Number.isNaN(score) ? 0 : clipped(score, by) * half;
  const mark = clipped(threshold, by) * half;
  return draw(
    "svg",
    {
      class: "score-bar",
      width: 2 * half + 2,
      height,
      viewBox: `${-half - 1} 0 ${2 * half + 2} ${height}`,
      "aria-hidden": "true",
    },
    draw("rect", { class: "track", x: -half, y: 3, width: 2 * half, height: 6, rx: 1 }),
    draw("rect", {
      class: isLow(at) ? "low" : score < 0 ? "below" : "fine",
      x: Math.min(size, 0),
      y: 3,
      width: Math.abs(size),
      height: 6,
    }),
    draw("path", { class: "zero", d: "M0 1v10" }),
    Number.isNaN(threshold) ? null : draw("path", { class: "threshold", d: `M${mark} 0v12` }),
  );
}

/** A decision as a badge; in shadow mode what would have been decided stands in brackets. */
function badge(decision, shadow = false) {
  const known = ["pass", "resample", "flag", "block", "escalate", "abstain"].includes(decision);
  const kind = decision ? (known ? decision : "other") : "unfinished";
  const told = decision || "unfinished";
  const letBe = shadow && decision && decision !== "pass";
  return make(
    "bdi",
    {
      class: `badge ${kind}${letBe ? " shadow" : ""}`,
      title: letBe ? "Shadow mode: decided and recorded, nothing changed" : null,
    },
    pieces(letBe ? `(${told})` : told),
  );
}
