// Text search through everything that was recorded of each step. The texts are read in the background when the search
// is first used; each slice of the work is short, so that typing never waits for it.

const SLICE = 12;
const texts = new Array(runs.length).fill(null);
/** Of each step, 1 if the text is found in it. */
const hit = new Uint8Array(total).fill(1);
const searching = { query: "", share: 1, turn: 0, told: 0 };

/** Looks for steps that hold a text, in whatever case; calls `progress` whenever there is more to show. */
async function search(query, progress) {
  const sought = query.trim().toLowerCase();
  const turn = ++searching.turn;
  searching.query = query;
  const told = (share) => {
    searching.share = share;
    searching.told = performance.now();
    progress();
  };
  if (!sought) {
    hit.fill(1);
    return told(1);
  }
  searching.share = 0;
  let since = performance.now();
  for (let place = 0; place < runs.length; place++) {
    if (!texts[place]) {
      texts[place] = await textsOf(place);
      if (turn !== searching.turn) return undefined;
    }
    texts[place].forEach((text, step) => {
      hit[first[place] + step] = text.includes(sought) ? 1 : 0;
    });
    if (performance.now() - since > SLICE) {
      await pause();
      if (turn !== searching.turn) return undefined;
      if (performance.now() - searching.told > 150) {
        hit.fill(0, first[place + 1]);
        told(place / runs.length);
      }
      since = performance.now();
    }
  }
  return told(1);
}

/** Of each step its actions, arguments, observations and decision, the messages new to it, and its run's names. */
async function textsOf(place) {
  const run = runs[place];
  const { steps, messages } = await unpacked(place);
  const told = messages.map(messageText);
  const head = [run.trace, run.conversation, run.task, run.agent, outcomeOf(run)].filter(Boolean).join("\n");
  return steps.map((step, at) => {
    const parts = [head, decisionAt(first[place] + at), step.reason, step.error, ...toolsAt(first[place] + at)];
    for (const each of step.candidates) {
      parts.push(each.text, each.reasoning, each.error, ...(each.tools ?? []), ...(each.arguments ?? []));
    }
    for (const [, message] of step.answers ?? []) parts.push(told[message]);
    for (const message of step.added ?? []) parts.push(told[message]);
    return parts.filter(Boolean).join("\n").toLowerCase();
  });
}

function messageText(message) {
  const calls = (message.calls ?? []).flatMap(([, name, given]) => [name, given]);
  return [message.text, message.reasoning, ...calls].filter(Boolean).join("\n");
}
