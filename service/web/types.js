/** One word: the row of its type, and the vector of each of its tokens in the sentences. */

import { isAbort } from "./api.js";
import { chunks } from "./batch.js";
import { fill, h, the } from "./dom.js";
import { cosine as shown, count, listed, percent, whole } from "./figures.js";
import { heatmap } from "./heatmap.js";
import { notice, sentence, words as inWords } from "./notice.js";
import { scatter } from "./scatter.js";
import { codePoints, fold } from "./text.js";
import { cosine, cosines, mean, plane, rows, spread, unit } from "./vectors.js";

/** @typedef {import("./reading.js").Item} Item */
/** @typedef {import("./text.js").Word} Word */
/** @typedef {{item: Item, word: Word, sentence: number, vector: Float64Array, name: string}} Use */
/** @typedef {{pieces: {text: string, id: number}[], row: Float64Array, unknown: boolean}} Type */

const MOST_USES = 60; // of a word that are drawn
const MOST_OTHERS = 400; // tokens in the background
const SUGGESTED = 8;
const SAME = 0.9995; // shown as 1.000
const MANY = 8; // uses that are listed at full length
const RARE = ["🧿", "龘"]; // in hardly any vocabulary: where both are one and the same type, it is that of all unknown words

export class Types {
  #service;
  /** @type {Item[] | null} */
  #items = null; // nothing was read yet
  #info = /** @type {any} */ (null);
  #word = "";
  #visible = false;
  #stale = true;
  #asking = new AbortController();
  #others = false;
  #withType = true;

  /** @param {import("./api.js").Service} service */
  constructor(service) {
    this.#service = service;
    the("pick").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.pick(the("word").value);
    });
    the("word").addEventListener("change", () => this.pick(the("word").value));
  }

  /** @param {string} word */
  pick(word) {
    if (word.trim() === this.#word && !this.#stale) return;
    this.#word = word.trim();
    the("word").value = this.#word;
    this.#stale = true;
    if (this.#visible) this.#look();
  }

  /** @param {Item[]} items @param {any} info */
  show(items, info) {
    this.#items = items;
    this.#info = info;
    this.#stale = true;
    if (this.#visible) this.#look();
  }

  /** @param {boolean} visible */
  setVisible(visible) {
    this.#visible = visible;
    if (visible && this.#stale) this.#look();
  }

  async #look() {
    if (!this.#items) return;
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    this.#stale = false;
    this.#suggest();
    fill(the("types-notice"));
    const word = this.#word;
    if (!word) {
      fill(the("senses"), h("p", { class: "empty" }, "Type a word of the sentences, or choose one."));
      return;
    }
    const all = usesOf(word, this.#items);
    const uses = all.slice(0, MOST_USES);
    the("senses").setAttribute("aria-busy", "true");
    try {
      const found = await this.#types([word, ...uses.flatMap(spellings), ...RARE], signal);
      const typed = found.get(word);
      if (typed.error) fill(the("senses"), notice(sentence(typed.error.message)));
      else this.#draw(word, uses, all.length, [typed, ...uses.map((use) => typeAt(use, found) ?? typed)]);
    } catch (error) {
      if (isAbort(error)) return;
      this.#stale = true;
      fill(the("types-notice"), notice(inWords(error), () => this.#look()));
    } finally {
      if (!signal.aborted) the("senses").removeAttribute("aria-busy");
    }
  }

  /** Look words up. @param {string[]} words @param {AbortSignal} signal @returns {Promise<Map<string, any>>} */
  async #types(words, signal) {
    const found = new Map();
    for (const part of chunks([...new Set(words)], this.#info)) {
      const { results } = await this.#service.types(part, signal);
      part.forEach((word, i) => found.set(word, results[i].status === "ok" ? typeOf(results[i]) : results[i]));
    }
    const [one, other] = RARE.map((word) => found.get(word).pieces);
    const unknown = one?.length === 1 && other?.length === 1 && one[0].id === other[0].id ? one[0].id : null;
    for (const type of found.values()) type.unknown = type.pieces?.some((/** @type {any} */ piece) => piece.id === unknown) ?? false;
    return found;
  }

  #suggest() {
    const buttons = shared(this.#items).map(({ word, places }) =>
      h(
        "button",
        { type: "button", "aria-pressed": String(fold(word) === fold(this.#word)), onclick: () => this.pick(word) },
        word,
        h("small", {}, ` ${places}`),
      ),
    );
    fill(the("words"), ...buttons);
  }

  /** @param {string} word @param {Use[]} uses @param {number} total @param {Type[]} types */
  #draw(word, uses, total, types) {
    const typeRows = cosines(types.map(({ row }) => row));
    const tokens = cosines(uses.map(({ vector }) => vector));
    const found = measured(word, types[0], typeRows, tokens);
    const matrix = [[1, ...uses.map(({ vector }) => cosine(types[0].row, vector))]];
    uses.forEach((_, i) => matrix.push([matrix[0][i + 1], ...tokens[i]]));
    const heads = [{ name: "type" }, ...uses.map((use) => ({ name: use.name, note: around(use, 1) }))];
    const short = [{ name: "type" }, ...uses.map((use) => ({ name: use.name }))];
    const between = spread(tokens);
    fill(
      the("senses"),
      h("p", { class: "finding" }, found),
      h(
        "dl",
        { class: "tiles" },
        tile("Type row, at every place", types.length > 1 ? shown(/** @type {any} */ (spread(typeRows)).least.value) : "–", "least cosine with itself"),
        tile("Tokens, least alike", between ? shown(between.least.value) : "–", between ? `cosine of ${pairName(uses, between.least.pair)}` : "needs two of them"),
        tile("Tokens, on average", between ? shown(between.mean) : "–", between ? `cosine over ${count((uses.length * (uses.length - 1)) / 2, "pair")}` : "needs two of them"),
        tile("Tokens, most alike", between ? shown(between.most.value) : "–", between ? `cosine of ${pairName(uses, between.most.pair)}` : "needs two of them"),
      ),
      total > uses.length && h("p", { class: "soft" }, `Of ${whole(total)} places the first ${uses.length} are shown.`),
      uses.length > 0 &&
        h(
          "div",
          uses.length > MANY ? { class: "wide", tabindex: "0", role: "region", "aria-label": `Where “${word}” stands` } : {},
          h("ol", { class: "uses" }, ...uses.map(context)),
        ),
      uses.length > 0 &&
        h(
          "div",
          { class: "pair" },
          h("div", {}, h("h3", {}, "How alike they are"), heatmap(`Cosine between the vectors of “${word}”`, heads, short, matrix)),
          this.#picture(word, uses, types[0]),
        ),
    );
  }

  /** @param {string} word @param {Use[]} uses @param {Type} type */
  #picture(word, uses, type) {
    const figure = h("figure");
    const table = h("div");
    const draw = () => {
      const used = new Set(uses.flatMap(({ item, word: { places } }) => places.map((place) => item.vectors[place])));
      const others = this.#others
        ? this.#items
            .flatMap((item, i) => item.tokens.map((token, place) => ({ token, vector: item.vectors[place], name: `${token.text} (${i + 1})` })))
            .filter(({ token, vector }) => !token.special && !used.has(vector))
            .slice(0, MOST_OTHERS)
        : [];
      const named = [
        ...(this.#withType ? [{ name: "type", kind: "type", note: `type row of “${word}”`, vector: type.row }] : []),
        ...uses.map((use) => ({ name: use.name, kind: "token", note: `${use.name}: ${around(use, 3)}`, vector: use.vector })),
        ...others.map(({ name, vector }) => ({ name, kind: "other", note: name, vector })),
      ];
      const { points, shares } = plane(named.map(({ vector }) => unit(vector)));
      const placed = named.map(({ name, kind, note }, i) => ({ name, note, kind: /** @type {any} */ (kind), x: points[i][0], y: points[i][1] }));
      const title = `The vectors of “${word}” in a plane: ${percent(shares[0] + shares[1])} of their variance; the figures are in the table below`;
      fill(figure, scatter(title, placed, shares));
      const drawn = placed.filter(({ kind }) => kind !== "other");
      fill(
        table,
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, ...["Vector", "First axis", "Second axis"].map((head) => h("th", { scope: "col" }, head)))),
          h("tbody", {}, ...drawn.map(({ name, x, y }) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, shown(x)), h("td", {}, shown(y))))),
        ),
      );
    };
    const check = (/** @type {string} */ name, /** @type {boolean} */ checked, /** @type {(on: boolean) => void} */ set) => {
      const box = h("input", { type: "checkbox", checked });
      box.addEventListener("change", () => {
        set(box.checked);
        draw();
      });
      return h("label", {}, box, ` ${name}`);
    };
    draw();
    return h(
      "div",
      {},
      h("h3", {}, "Where they lie"),
      figure,
      h(
        "div",
        { class: "choice" },
        check("type row", this.#withType, (on) => (this.#withType = on)),
        check("all other tokens", this.#others, (on) => (this.#others = on)),
      ),
      h("p", { class: "soft" }, "The first two principal components of the vectors, each scaled to length 1. The type row is where reading begins, before any layer; the tokens are what the last layer gives."),
      h("details", {}, h("summary", {}, "Coordinates as a table"), table),
    );
  }
}

/**
 * Return where a word stands in the sentences.
 *
 * @param {string} word
 * @param {Item[]} items
 * @returns {Use[]}
 */
export function usesOf(word, items) {
  const wanted = fold(word);
  const uses = items.flatMap((item, i) =>
    item.words
      .filter((found) => fold(found.text) === wanted)
      .map((found, nth, all) => ({
        item,
        word: found,
        sentence: i + 1,
        vector: mean(found.places.map((place) => item.vectors[place])),
        name: all.length > 1 ? `${i + 1}${"abcdefghijklmnopqrstuvwxyz"[nth] ?? `.${nth + 1}`}` : String(i + 1),
      })),
  );
  return uses;
}

/** @param {any} result @returns {Type} */
function typeOf(result) {
  return { pieces: result.tokens, row: mean(rows(result.type_embeddings)), unknown: false };
}

/**
 * What to look up for a word in its sentence: in some vocabularies the space before a word is part of it.
 *
 * @param {Use} use
 */
const spellings = ({ word }) => [word.text, ` ${word.text}`];

/**
 * Return the type that a word has in its sentence: the one of the very pieces that stand there.
 *
 * @param {Use} use
 * @param {Map<string, any>} found
 * @returns {Type | undefined}
 */
function typeAt(use, found) {
  const ids = use.word.places.map((place) => use.item.tokens[place].id).join();
  const types = spellings(use).map((spelling) => found.get(spelling));
  return types.find((type) => type.pieces?.map((/** @type {any} */ piece) => piece.id).join() === ids);
}

/**
 * Say what was measured: every word of it follows from the figures.
 *
 * @param {string} word
 * @param {{pieces: {text: string}[], unknown: boolean}} type
 * @param {number[][]} typeRows Cosines of the rows, as typed first, then at each place.
 * @param {number[][]} tokens Cosines of the token vectors.
 */
export function measured(word, type, typeRows, tokens) {
  const name = `“${word}”`;
  const pieces = type.pieces.length;
  const strange = type.unknown ? ` The model does not know ${pieces > 1 ? "all of it" : "it"}: it has the row of every unknown word.` : "";
  const made = strange + (pieces > 1 ? ` It is made of ${pieces} pieces (${listed(type.pieces.map(({ text }) => text))}), so every vector here is the mean over them.` : "");
  if (!tokens.length) return `${name} stands in none of the sentences. It has a type row all the same; write it into a sentence to see what becomes of it.${made}`;
  const same = /** @type {any} */ (spread(typeRows)).least.value;
  const begins =
    same >= SAME
      ? `${name} has one type row${tokens.length > 1 ? `, the same at ${tokens.length === 2 ? "both" : `all ${tokens.length}`} places` : ""}: cosine ${shown(same)}.`
      : `${name} is written in ways that have type rows of their own: the cosine between them is ${shown(same)} at the least.`;
  const between = spread(tokens);
  if (!between) return `${begins} It has one token here; write it into another sentence to compare.${made}`;
  const ends =
    between.least.value >= SAME
      ? ` Its ${tokens.length} tokens have the same vector too: cosine ${shown(between.least.value)}${tokens.length > 2 ? " at the least" : ""}. What surrounds them is the same.`
      : ` Its ${tokens.length} tokens are not the same: the cosine between them is ${shown(between.least.value)}${tokens.length > 2 ? ` at the least and ${shown(between.mean)} on average` : ""}.`;
  return `${begins}${ends}${made}`;
}

/** Words of more than one sentence, the longest of the most frequent first. @param {Item[]} items */
function shared(items) {
  /** @type {Map<string, {word: string, places: Set<number>}>} */
  const found = new Map();
  items.forEach((item, i) => {
    for (const { text } of item.words) {
      if (!/[\p{L}\p{N}]/u.test(text)) continue;
      const entry = found.get(fold(text)) ?? { word: text, places: new Set() };
      entry.places.add(i);
      found.set(fold(text), entry);
    }
  });
  return [...found.values()]
    .filter(({ places }) => places.size > 1 || items.length === 1)
    .sort((one, other) => other.word.length - one.word.length || other.places.size - one.places.size)
    .slice(0, SUGGESTED)
    .map(({ word, places }) => ({ word, places: places.size }));
}

/** @param {string} name @param {string} figure @param {string} note */
function tile(name, figure, note) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, figure, h("small", {}, note)));
}

/** @param {Use[]} uses @param {number[]} pair */
const pairName = (uses, pair) => `${uses[pair[0]].name} and ${uses[pair[1]].name}`;

/** A word and its neighbours. @param {Use} use @param {number} reach In words. */
function around({ item, word }, reach) {
  const at = item.words.indexOf(word);
  const [first, last] = [item.words[Math.max(0, at - reach)], item.words[Math.min(item.words.length - 1, at + reach)]];
  return codePoints(item.text).slice(first.start, last.end).join("");
}

/** @param {Use} use */
function context({ item, word, name }) {
  const points = codePoints(item.text);
  const [before, after] = [points.slice(0, word.start), points.slice(word.end)];
  return h(
    "li",
    {},
    h("span", { class: "place" }, name),
    h(
      "span",
      {},
      before.length > 60 ? `…${before.slice(-58).join("")}` : before.join(""),
      h("mark", {}, word.text),
      after.length > 60 ? `${after.slice(0, 58).join("")}…` : after.join(""),
    ),
  );
}
