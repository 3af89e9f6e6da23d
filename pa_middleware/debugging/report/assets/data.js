// The data of the page: of all runs in columns, and of each run's steps when they are asked for.

const all = JSON.parse(byId("overview-data").textContent);
const runs = all.runs;

/** Where each run stands, by its id. */
const places = new Map(runs.map((run, place) => [run.id, place]));

/** Where each run's steps begin in the columns below; one more than there are runs. */
const first = new Uint32Array(runs.length + 1);
runs.forEach((run, place) => {
  first[place + 1] = first[place] + run.score.length;
});
const total = first[runs.length];

const column = {
  score: new Float64Array(total).fill(NaN),
  threshold: new Float64Array(total).fill(NaN),
  decision: new Uint32Array(total),
  action: new Uint32Array(total),
  draws: new Uint32Array(total),
};
runs.forEach((run, place) => {
  run.place = place;
  run.length = run.score.length;
  run.lowest = NaN;
  for (let step = 0; step < run.length; step++) {
    const at = first[place] + step;
    const fixed = (values) => (Array.isArray(values) ? values[step] : values);
    column.score[at] = run.score[step] ?? NaN;
    column.threshold[at] = fixed(run.threshold) ?? all.threshold ?? NaN;
    column.decision[at] = run.decision[step];
    column.action[at] = run.action[step];
    column.draws[at] = fixed(run.draws) ?? 0;
    if (!(run.lowest <= column.score[at]) && !Number.isNaN(column.score[at])) run.lowest = column.score[at];
  }
});

/** What the scores are drawn to scale by: few reach beyond it, and a single odd one does not flatten the others. */
const scale = (() => {
  const sizes = column.score
    .map(Math.abs)
    .filter((size) => !Number.isNaN(size))
    .sort();
  return sizes[Math.floor(sizes.length * 0.995)] || sizes[sizes.length - 1] || 1;
})();

const isLow = (at) => column.score[at] < column.threshold[at];
const decisionAt = (at) => all.decisions[column.decision[at]];
const toolsAt = (at) => all.actions[column.action[at]];
const numberOf = (run, step) => (run.number ? run.number[step] : step);
const nameOf = (run) => run.conversation || run.trace;
const outcomeOf = (run) => (run.success === null ? "unknown" : run.success ? "succeeded" : "failed");

const opened = new Map();
const OPEN = 40;

/** The steps of a run with all that is known of them; the latest runs asked for are kept. */
function detailsOf(place) {
  const known = opened.get(place);
  opened.delete(place);
  opened.set(place, known ?? unpacked(place));
  if (opened.size > OPEN) opened.delete(opened.keys().next().value);
  return opened.get(place);
}

async function unpacked(place) {
  const packed = atob(byId(`run-${place}`).textContent);
  const bytes = new Uint8Array(packed.length);
  for (let at = 0; at < packed.length; at++) bytes[at] = packed.charCodeAt(at);
  const inflated = new DecompressionStream("deflate");
  const writer = inflated.writable.getWriter(); // quicker than the stream of a blob
  for (const done of [writer.write(bytes), writer.close()]) done.catch(() => {}); // what fails is told by the text
  return JSON.parse(await new Response(inflated.readable).text());
}

/** Numbers of the messages that the model was shown at a step, oldest first. */
function historyOf(steps, place) {
  const shown = [];
  for (const { cut = [0, 0], added = [] } of steps.slice(0, place + 1)) {
    shown.splice(...cut);
    for (const number of added) shown.push(number);
  }
  return shown;
}

/** Of each message shown at a step: whether the step before was not shown it; and how many of that one's are gone. */
function changes(steps, place) {
  const now = historyOf(steps, place);
  const before = place ? historyOf(steps, place - 1) : now;
  const { cut: [begin, many] = [0, 0], added = [] } = steps[place];
  const left = new Map();
  if (place) for (const message of before.slice(begin, begin + many)) left.set(message, (left.get(message) ?? 0) + 1);
  const fresh = now.map((message, at) => {
    if (!place || at < now.length - added.length) return false;
    const count = left.get(message) ?? 0;
    if (count) left.set(message, count - 1);
    return !count;
  });
  return { now, fresh, gone: [...left.values()].reduce((sum, each) => sum + each, 0) };
}

/** The candidate that was decided on. */
const chosen = (step) => (step.candidates ?? []).find((each) => each.index === step.selected) ?? null;
