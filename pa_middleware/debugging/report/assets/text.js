// What a model, a tool or a user wrote is shown as it is: as text, isolated from the text around it, and with its
// control characters, bidirectional overrides and lone surrogates written out as their codes.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
const HIDDEN_IN_BLOCKS = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
const CUT = 1200;
const MOST_CODES = 2000;

function code(char) {
  const point = char.codePointAt(0);
  const hex = point.toString(16);
  if (point < 0x100) return `\\x${hex.padStart(2, "0")}`;
  return point < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}

/** One line of plain text, for tooltips and attributes. */
function visible(text) {
  return String(text).replace(HIDDEN, code);
}

/** Text nodes, with what was hidden set apart, unless there is very much of it. */
function pieces(text, hidden = HIDDEN) {
  const found = text.match(hidden);
  if (!found) return [text];
  if (found.length > MOST_CODES) return [text.replace(hidden, code)];
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(hidden)) {
    parts.push(text.slice(from, match.index), make("span", { class: "hidden-char" }, code(match[0])));
    from = match.index + match[0].length;
  }
  return [...parts, text.slice(from)];
}

/** A name, an id, a short text within a line. */
function quoted(text, kind = null, most = 300) {
  const cut = whole(String(text), most);
  const title = cut.length > 40 ? visible(whole(String(text), 2 * CUT)) : null;
  return make("bdi", { class: kind, title }, pieces(cut), cut.length < String(text).length ? "…" : "");
}

/** A text of its own: lines are kept, long ones are cut until asked for. */
function block(text, kind = "") {
  const place = make("div", { class: `text ${kind}`, dir: "auto" }, pieces(whole(text, CUT), HIDDEN_IN_BLOCKS));
  if (text.length <= CUT) return place;
  const more = button(
    `Show all ${text.length.toLocaleString("en")} characters`,
    () => {
      place.replaceChildren(...sheets(text));
      place.setAttribute("tabindex", "0");
      place.focus();
      more.remove();
    },
    { kind: "small" },
  );
  return make("div", {}, place, more);
}

/** A long text in parts that the browser lays out when they come into view. */
function sheets(text) {
  const found = [];
  const many = (text.match(HIDDEN_IN_BLOCKS) ?? []).length > MOST_CODES;
  for (let from = 0; from < text.length;) {
    const sheet = whole(text.slice(from, from + 8001), 8000);
    found.push(
      make(
        "div",
        { class: "sheet", dir: "auto" },
        many ? sheet.replace(HIDDEN_IN_BLOCKS, code) : pieces(sheet, HIDDEN_IN_BLOCKS),
      ),
    );
    from += sheet.length;
  }
  return found;
}

/** The beginning of a text; never half of a character. */
function whole(text, most) {
  if (text.length <= most) return text;
  return text.slice(0, /[\ud800-\udbff]/.test(text[most - 1]) ? most - 1 : most);
}

/** JSON in lines; other text as it is. */
function laidOut(json) {
  if (json.length > 200000) return json;
  try {
    const value = JSON.parse(json);
    return typeof value === "object" && value !== null ? JSON.stringify(value, null, 2) : json;
  } catch {
    return json;
  }
}

/** A signed number for people, about three digits; "" for none. */
function signed(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  const size = Math.abs(value);
  const told =
    size !== 0 && (size < 0.5 * 10 ** -digits || size >= 1e6)
      ? size.toExponential(1)
      : size.toFixed(size >= 100 ? 0 : size >= 10 ? Math.min(1, digits) : digits);
  return `${value < 0 ? "−" : "+"}${told}`;
}

/** "1 step", "2 steps". */
function counted(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}

/** Milliseconds for people. */
function lasting(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60000)} min ${Math.floor((ms % 60000) / 1000)} s`;
}

/** A moment, in the reader's own time zone. */
function moment(ms) {
  if (ms === null || ms <= 0) return "";
  const at = new Date(ms);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}`;
}
