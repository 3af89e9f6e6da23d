// Which runs and steps are wanted, and in which order the runs stand.

const anything = () => ({
  text: "",
  least: null,
  most: null,
  low: false,
  stands: false,
  decisions: new Set(),
  tools: new Set(),
  outcomes: new Set(),
});
/** Everything the reader set; `address.js` writes it into the permalink. */
const wanted = { ...anything(), sort: "lowest", descending: false };
/** What came of it: of each step 1 if it matches; the matching runs in their order; how many steps match. */
const matches = { step: new Uint8Array(total).fill(1), runs: [], steps: 0 };

const filtersSteps = () =>
  Boolean(
    wanted.text.trim() ||
    wanted.least !== null ||
    wanted.most !== null ||
    wanted.low ||
    wanted.decisions.size ||
    wanted.tools.size,
  );
const filters = () => filtersSteps() || wanted.stands || wanted.outcomes.size > 0;

function applyFilter() {
  const decisions = all.decisions.map((name) => wanted.decisions.has(name));
  const actions = all.actions.map((tools) => tools.some((name) => wanted.tools.has(name)));
  const { least, most, low } = wanted;
  const ofSteps = filtersSteps();
  matches.runs = [];
  matches.steps = 0;
  for (const run of runs) {
    const shown = (!wanted.outcomes.size || wanted.outcomes.has(outcomeOf(run))) && (!wanted.stands || run.stands);
    let found = 0;
    for (let at = first[run.place]; at < first[run.place + 1]; at++) {
      const score = column.score[at];
      const match =
        shown &&
        hit[at] &&
        (least === null || score >= least) &&
        (most === null || score <= most) &&
        (!low || isLow(at)) &&
        (!wanted.decisions.size || decisions[column.decision[at]]) &&
        (!wanted.tools.size || actions[column.action[at]]);
      matches.step[at] = match ? 1 : 0;
      found += match ? 1 : 0;
    }
    run.found = found;
    matches.steps += found;
    if (shown && (found || !ofSteps)) matches.runs.push(run.place);
  }
  order(matches.runs);
}

const KEYS = {
  lowest: (run) => run.lowest,
  start: (run) => run.start,
  length: (run) => run.length,
  outcome: (run) => ["failed", "unknown", "succeeded"].indexOf(outcomeOf(run)),
  name: (run) => nameOf(run),
  margin: (run) => (run.suspects.length ? -run.suspects[0][2] : NaN),
  resamples: (run) => (run.resamples === null ? NaN : -run.resamples),
  duration: (run) => run.duration ?? NaN,
};

/** Sorts runs in place; those that have no such number stand last either way, and equals as they began. */
function order(found) {
  const keys = runs.map(KEYS[wanted.sort]);
  const sign = wanted.descending ? -1 : 1;
  found.sort((one, other) => {
    const [a, b] = [keys[one], keys[other]];
    const [noA, noB] = [a === null || Number.isNaN(a), b === null || Number.isNaN(b)];
    if (noA || noB) return noA - noB || one - other;
    return (a < b ? -sign : a > b ? sign : 0) || one - other;
  });
}

/** How many steps or runs have each value, for the filter's labels. */
const counts = (() => {
  const decisions = new Map();
  const tools = new Map();
  const outcomes = new Map();
  const add = (map, key) => map.set(key, (map.get(key) ?? 0) + 1);
  for (let at = 0; at < total; at++) {
    add(decisions, decisionAt(at));
    new Set(toolsAt(at)).forEach((name) => add(tools, name));
  }
  runs.forEach((run) => add(outcomes, outcomeOf(run)));
  return { decisions, tools, outcomes };
})();

/** The next matching step of a run from `step` on, up (1) or down (-1); null if there is none. */
function nextStep(run, step, way) {
  for (let at = step + way; at >= 0 && at < run.length; at += way) {
    if (matches.step[first[run.place] + at] || !filtersSteps()) return at;
  }
  return null;
}
