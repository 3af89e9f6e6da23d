// One run's scores as bars with their threshold, and below them the sum of the scores so far. Click a bar to go there.

function chart(run, current, go) {
  const box = make("div", { class: "chart" });
  const readout = make("div", { class: "readout", "aria-hidden": "true" });
  const paint = () => {
    const width = Math.max(box.clientWidth - 20, 200);
    box.replaceChildren(plot(run, current, width, readout, go), readout);
  };
  box.redraw = (step) => {
    current = step;
    paint();
  };
  let wide = 0;
  new ResizeObserver(() => {
    if (box.clientWidth !== wide) {
      wide = box.clientWidth;
      paint();
    }
  }).observe(box);
  return box;
}

function plot(run, current, width, readout, go) {
  const area = { left: 38, right: width - 6, top: 8, bottom: 108, sumTop: 124, sumBottom: 164 };
  const most = Math.floor((area.right - area.left) / 2);
  const found = bars(run, most);
  const scores = found.map((bar) => bar.score).filter((score) => !Number.isNaN(score));
  const limits = found.map((bar) => column.threshold[first[run.place] + bar.step]);
  const sums = sumsOf(run);
  const y = axis([0, ...scores, ...limits.filter((limit) => !Number.isNaN(limit))], area.top, area.bottom);
  const yOfSum = axis([0, ...sums], area.sumTop, area.sumBottom);
  const step = (area.right - area.left) / Math.max(found.length, 1);
  const x = (place) => area.left + (place + 0.5) * step;
  const group = Math.max(1, Math.ceil(run.length / most));
  const wide = Math.max(Math.min(step * 0.68, 18), 1);
  const ranks = new Map(run.suspects.slice(0, 3).map(([suspect], rank) => [Math.floor(suspect / group), rank + 1]));
  const marks = found.map((bar, place) => {
    if (Number.isNaN(bar.score))
      return draw("path", { class: "none", d: `M${x(place) - 2} ${y(0) - 2}l4 4m0 -4l-4 4` });
    const top = Math.min(y(bar.score), y(0));
    return draw("rect", {
      class: bar.kind,
      x: x(place) - wide / 2,
      y: top,
      width: wide,
      height: Math.max(Math.abs(y(bar.score) - y(0)), 1),
    });
  });
  const here = Math.floor(current / group);
  const picture = draw(
    "svg",
    { width, height: 172, viewBox: `0 0 ${width} 172`, role: "img", "aria-label": summary(run) },
    draw("rect", { class: "here", x: x(here) - step / 2, y: 2, width: Math.max(step, 2), height: 166 }),
    ticks(y, [...new Set([y.low, 0, y.high])], area),
    draw("path", { class: "zero", d: `M${area.left} ${y(0)}H${area.right}` }),
    marks,
    draw("path", { class: "threshold", d: stepped(limits, (place) => area.left + place * step, y) }),
    [...ranks]
      .map(
        ([place, rank]) =>
          (run.stands || rank === 1) &&
          draw(
            "text",
            {
              class: run.stands && rank === 1 ? "rank" : "rank faint",
              x: x(place),
              y: Math.min(y(Math.min(found[place].score, 0)) + 11, area.bottom + 13),
              "text-anchor": "middle",
            },
            String(rank),
          ),
      )
      .filter(Boolean),
    draw("path", { class: "zero", d: `M${area.left} ${yOfSum(0)}H${area.right}` }),
    draw("path", {
      class: "sum",
      d: line(sums, (at) => x(at / group), yOfSum),
    }),
    draw(
      "text",
      { class: "tick", x: area.left - 5, y: (area.sumTop + area.sumBottom) / 2 + 4, "text-anchor": "end" },
      "sum",
    ),
  );
  const at = (event) => {
    const place = Math.floor((event.clientX - picture.getBoundingClientRect().left - area.left) / step);
    return found[Math.min(Math.max(place, 0), found.length - 1)];
  };
  picture.addEventListener("pointermove", (event) => {
    const bar = at(event);
    if (bar) readout.replaceChildren(...told(run, bar.step, sums));
  });
  picture.addEventListener("pointerleave", () => readout.replaceChildren(...told(run, current, sums)));
  picture.addEventListener("click", (event) => {
    const bar = at(event);
    if (bar) go(bar.step);
  });
  readout.replaceChildren(...told(run, current, sums));
  return picture;
}

/** What the readout says of a step. */
function told(run, step, sums) {
  if (!run.length) return ["no steps"];
  const at = first[run.place] + step;
  return [
    `step ${numberOf(run, step)}   score ${signed(column.score[at]) || "none"}`,
    Number.isNaN(column.threshold[at]) ? "" : `   threshold ${signed(column.threshold[at])}`,
    `   sum ${signed(sums[step])}   `,
    quoted(toolsAt(at).join(", "), null, 60),
  ];
}

/** The sum of the scores up to and with each step; steps without a score add nothing. */
function sumsOf(run) {
  let sum = 0;
  return run.score.map((score) => (sum += score ?? 0));
}

/** From values to heights; `low` and `high` are the ends that are labelled. */
function axis(values, top, bottom) {
  const low = values.reduce((least, each) => Math.min(least, each), 0);
  const high = values.reduce((most, each) => Math.max(most, each), 0);
  const span = high - low || 1;
  return Object.assign((value) => top + ((high - value) / span) * (bottom - top), { low, high });
}

function ticks(y, values, area) {
  const placed = [];
  return values.map((value) => {
    if (placed.some((other) => Math.abs(other - y(value)) < 12)) return null;
    placed.push(y(value));
    return draw(
      "text",
      { class: "tick", x: area.left - 5, y: y(value) + 4, "text-anchor": "end" },
      value ? signed(value, 1) : "0",
    );
  });
}

/** A line through all values. */
function line(values, x, y) {
  const points = values.map((value, at) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
  return points.length ? `M${points.join("L")}` : "";
}

/** A line through the thresholds, broken where there is none. */
function stepped(limits, x, y) {
  return limits
    .map((limit, place) =>
      Number.isNaN(limit) ? "" : `M${x(place).toFixed(1)} ${y(limit).toFixed(1)}H${x(place + 1).toFixed(1)}`,
    )
    .join("");
}

function summary(run) {
  const low = run.score.filter((_, step) => isLow(first[run.place] + step)).length;
  const lowest = signed(run.lowest) || "none";
  return `Scores of ${counted(run.length, "step")}, ${low} below the threshold, lowest ${lowest}. ${visible(run.why)}`;
}
