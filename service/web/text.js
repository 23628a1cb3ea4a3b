/** Sentences, characters and words. The service counts characters in code points; a JavaScript string does not. */

/** @typedef {{text: string, id: number, start: number, end: number, special: boolean}} Token */
/** @typedef {{text: string, start: number, end: number, places: number[]}} Word tokens[places[i]] are its pieces */

const INSIDE = /[\p{L}\p{N}\p{M}_]/u;
const ALONE = /\p{Script=Han}/u; // every character is a token of its own, and mostly a word

/**
 * Return the sentences of a text, one a line; blank lines are none.
 *
 * @param {string} text
 */
export function sentences(text) {
  return text.split("\n").filter((line) => line.trim() !== "");
}

/**
 * Return the characters of a text as the service counts them: one an element, also beyond the 16-bit ones.
 *
 * @param {string} text
 */
export function codePoints(text) {
  return Array.from(text);
}

/**
 * Return the words of a tokenized text: runs of tokens with nothing between them and letters or digits on both sides.
 *
 * @param {string} text
 * @param {Token[]} tokens
 * @returns {Word[]}
 */
export function words(text, tokens) {
  const points = codePoints(text);
  /** @type {Word[]} */
  const found = [];
  tokens.forEach((token, place) => {
    if (token.special || token.end <= token.start) return;
    const last = found.at(-1);
    if (last && goesOn(points, last.end, token.start)) {
      last.places.push(place);
      last.end = Math.max(last.end, token.end);
      last.text = points.slice(last.start, last.end).join("");
    } else {
      found.push({ text: points.slice(token.start, token.end).join(""), ...span(token), places: [place] });
    }
  });
  return found;
}

/** @param {Token} token */
const span = ({ start, end }) => ({ start, end });

/** @param {string[]} points @param {number} end @param {number} start */
function goesOn(points, end, start) {
  if (start < end) return true; // several pieces of one character
  const [before, after] = [points[end - 1], points[start]];
  return start === end && [before, after].every((point) => INSIDE.test(point) && !ALONE.test(point));
}

/**
 * Return what two spellings of a word have in common: their letters, whatever the case.
 *
 * @param {string} word
 */
export function fold(word) {
  return word.trim().normalize("NFC").toLowerCase();
}

/**
 * Shorten a text in the middle of which nothing matters.
 *
 * @param {string} text
 * @param {number} length In characters.
 */
export function shortened(text, length) {
  const points = codePoints(text);
  return points.length <= length
    ? text
    : `${points
        .slice(0, length - 1)
        .join("")
        .trimEnd()}…`;
}
