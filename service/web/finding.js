/** What was measured of a word, in words: every one of them follows from the figures. */

import { cosine as shown, listed } from "./figures.js";
import { spread } from "./vectors.js";

/** @typedef {{pieces: {text: string}[], unknown: boolean}} Type */

const SAME = 0.9995; // shown as 1.000

/**
 * Say what was measured.
 *
 * @param {string} word
 * @param {Type} type
 * @param {number[][]} types Cosines of the type rows, as typed first, then at each place.
 * @param {number[][]} tokens Cosines of the token vectors.
 */
export function finding(word, type, types, tokens) {
  return [...seen(`“${word}”`, types, tokens), ...made(type)].join(" ");
}

/** @param {string} name @param {number[][]} types @param {number[][]} tokens */
function seen(name, types, tokens) {
  const count = tokens.length;
  const same = spread(types)?.least.value;
  const between = spread(tokens);
  if (same === undefined) {
    return [`${name} stands in none of the sentences.`, "It has a type row all the same; write it into one of them."];
  }
  const places = count === 1 ? "" : `, the same at ${count === 2 ? "both" : `all ${count}`} places`;
  const row =
    same >= SAME
      ? `${name} has one type row${places}: cosine ${shown(same)}.`
      : `${name} is written in ways that have type rows of their own: the cosine between them is ${shown(same)}.`;
  if (!between) return [row, "It has one token here; write it into another sentence to compare."];
  const least = shown(between.least.value);
  const most = count > 2 ? ` at the least and ${shown(between.mean)} on average` : "";
  return between.least.value >= SAME
    ? [row, `Its ${count} tokens have the same vector too: cosine ${least}${most}. What surrounds them is the same.`]
    : [row, `Its ${count} tokens are not the same: the cosine between them is ${least}${most}.`];
}

/** @param {Type} type */
function made({ pieces, unknown }) {
  const names = listed(pieces.map(({ text }) => text));
  return [
    unknown &&
      `The model does not know ${pieces.length > 1 ? "all of it" : "it"}: it has the row of every unknown word.`,
    pieces.length > 1 &&
      `It is made of ${pieces.length} pieces (${names}), so every vector here is the mean over them.`,
  ].filter(Boolean);
}
