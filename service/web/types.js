/** One word: the row of its type, and the vector of each of its tokens in the sentences. */

import { isAbort, patiently } from "./api.js";
import { chunks } from "./batch.js";
import { announce, fill, h, refill, the } from "./dom.js";
import { cosine as shown, count, percent, whole } from "./figures.js";
import { finding } from "./finding.js";
import { heatmap } from "./heatmap.js";
import { busy, notice, sentence, words as inWords } from "./notice.js";
import { details, scroller, table, tiles } from "./parts.js";
import { scatter } from "./scatter.js";
import { codePoints, fold } from "./text.js";
import { cosines, mean, plane, rows, spread, unit } from "./vectors.js";

/** @typedef {import("./reading.js").Item} Item */
/** @typedef {import("./text.js").Word} Word */
/** @typedef {{item: Item, word: Word, vector: Float64Array, name: string}} Use */
/** @typedef {{pieces: {text: string, id: number}[], row: Float64Array, unknown: boolean}} Type */

const MOST_USES = 60; // of a word that are drawn
const MOST_OTHERS = 400; // tokens in the background
const SUGGESTED = 8;
const MANY = 8; // uses that are listed at full length
// In hardly any vocabulary: where both have one and the same type, it is that of all unknown words.
const RARE = ["🧿", "龘"];

export class Types {
  #service;
  #outdated;
  /** @type {Item[] | null} */
  #items = null; // nothing was read yet
  #info = /** @type {any} */ (null);
  #word = "";
  #visible = false;
  #stale = true;
  #aloud = false; // a word was chosen: what comes of it is said
  #asking = new AbortController();
  #others = false;
  #withType = true;

  /**
   * @param {import("./api.js").Service} service
   * @param {() => void} outdated Is called where another model answers than the one that read the sentences.
   */
  constructor(service, outdated) {
    this.#service = service;
    this.#outdated = outdated;
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
    this.#stale = this.#aloud = true;
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
    const word = this.#word;
    if (!word) {
      refill(the("types-notice"), the("word"));
      the("senses").removeAttribute("aria-busy");
      fill(the("senses"), h("p", { class: "empty" }, "Type a word of the sentences, or choose one."));
      return;
    }
    const all = usesOf(word, this.#items);
    const uses = all.slice(0, MOST_USES);
    the("senses").setAttribute("aria-busy", "true");
    try {
      const { found, versions } = await this.#types([word, ...uses.flatMap(spellings), ...RARE], signal);
      for (const { version } of this.#items) if (version !== null) versions.add(version);
      if (versions.size > 1) {
        this.#stale = true;
        this.#outdated();
        return;
      }
      refill(the("types-notice"), the("word"));
      const typed = found.get(word);
      const told = typed.error
        ? sentence(typed.error.message)
        : this.#draw(word, uses, all.length, [typed, ...uses.map((use) => typeAt(use, found) ?? typed)]);
      if (typed.error) fill(the("senses"), notice(told));
      if (this.#aloud) announce(told);
      this.#aloud = false;
    } catch (error) {
      if (isAbort(error)) return;
      this.#stale = true;
      const again = () => {
        this.#service.mayAskAgain();
        this.#look();
      };
      refill(the("types-notice"), the("word"), notice(inWords(error), again));
    } finally {
      if (!signal.aborted) the("senses").removeAttribute("aria-busy");
    }
  }

  /**
   * Look words up.
   *
   * @param {string[]} words
   * @param {AbortSignal} signal
   * @returns {Promise<{found: Map<string, any>, versions: Set<string>}>} `versions`: of the models that answered
   */
  async #types(words, signal) {
    const found = new Map();
    const versions = new Set();
    const waiting = (/** @type {number} */ seconds) => refill(the("types-notice"), the("word"), notice(busy(seconds)));
    for (const part of chunks([...new Set(words)], this.#info)) {
      const { results, model } = await patiently(() => this.#service.types(part, signal), signal, waiting);
      if (model) versions.add(model.version);
      part.forEach((word, i) => found.set(word, results[i].status === "ok" ? typeOf(results[i]) : results[i]));
    }
    const [one, other] = RARE.map((word) => found.get(word).pieces);
    const unknown = one?.length === 1 && other?.length === 1 && one[0].id === other[0].id ? one[0].id : null;
    for (const type of found.values()) type.unknown = (type.pieces ?? []).some(({ id }) => id === unknown);
    return { found, versions };
  }

  #suggest() {
    const list = the("words");
    const buttons = shared(this.#items).map(({ word, places }) => {
      const pressed = String(fold(word) === fold(this.#word));
      const look = { type: "button", value: word, "aria-pressed": pressed, onclick: () => this.pick(word) };
      return h("button", look, word, h("small", {}, ` ${places}`));
    });
    const held = list.contains(document.activeElement) ? document.activeElement.value : null;
    fill(list, ...buttons);
    if (held !== null) (buttons.find(({ value }) => value === held) ?? the("word")).focus();
  }

  /**
   * Show what was found, and return it in words.
   *
   * @param {string} word
   * @param {Use[]} uses
   * @param {number} total
   * @param {Type[]} types
   */
  #draw(word, uses, total, types) {
    const between = {
      types: cosines(types.map(({ row }) => row)),
      tokens: cosines(uses.map(({ vector }) => vector)),
    };
    const everything = [types[0].row, ...uses.map(({ vector }) => vector)];
    const heads = [{ name: "type" }, ...uses.map((use) => ({ name: use.name, note: around(use, 1) }))];
    const across = heads.map(({ name }) => ({ name }));
    const places = h("ol", { class: "uses" }, ...uses.map(context));
    const told = finding(word, types[0], between.types, between.tokens);
    const alike = heatmap(`Cosine between the vectors of “${word}”`, heads, across, cosines(everything));
    fill(
      the("senses"),
      h("p", { class: "finding" }, told),
      uses.length > 0 && measures(uses, spread(between.types), spread(between.tokens)),
      total > uses.length && h("p", { class: "soft" }, `Of ${whole(total)} places the first ${uses.length} are shown.`),
      uses.length > MANY ? scroller(`Where “${word}” stands`, places) : places,
      uses.length > 0 &&
        h(
          "div",
          { class: "pair" },
          h("div", {}, h("h3", {}, "How alike they are"), alike),
          this.#picture(word, uses, types[0]),
        ),
    );
    return told;
  }

  /** @param {string} word @param {Use[]} uses @param {Type} type */
  #picture(word, uses, type) {
    const figure = h("figure");
    const coordinates = h("div");
    const draw = () => {
      const own = uses.map((use) => ({
        name: use.name,
        kind: "token",
        note: `${use.name}: ${around(use, 3)}`,
        vector: use.vector,
      }));
      const row = { name: "type", kind: "type", note: `type row of “${word}”`, vector: type.row };
      const all = [...(this.#withType ? [row] : []), ...own, ...(this.#others ? others(this.#items ?? [], uses) : [])];
      const { points, shares } = plane(all.map(({ vector }) => unit(vector)));
      const placed = all.map((one, i) => ({ ...one, x: points[i][0], y: points[i][1] }));
      const title = `The vectors of “${word}” in a plane; their coordinates are in the table below`;
      fill(figure, scatter(title, placed, shares));
      const heads = ["Vector", "First axis", "Second axis"].map((name) => ({ name }));
      const rows = placed.filter(({ kind }) => kind !== "other").map(({ name, x, y }) => [name, shown(x), shown(y)]);
      fill(coordinates, table(heads, rows));
    };
    draw();
    const choices = [
      checkbox("type row", this.#withType, (on) => ((this.#withType = on), draw())),
      checkbox("all other tokens", this.#others, (on) => ((this.#others = on), draw())),
    ];
    const about =
      "The first two principal components of the vectors, each scaled to length 1. The type row is where reading " +
      "begins, before any layer; the tokens are what the last layer gives.";
    return h(
      "div",
      {},
      h("h3", {}, "Where they lie"),
      figure,
      h("div", { class: "choice" }, ...choices),
      h("p", { class: "soft" }, about),
      details("Coordinates as a table", coordinates),
    );
  }
}

/**
 * Return the cosines that tell most.
 *
 * @param {Use[]} uses
 * @param {ReturnType<typeof spread>} types Of the type rows.
 * @param {ReturnType<typeof spread>} tokens Of the token vectors.
 */
function measures(uses, types, tokens) {
  const figure = (/** @type {number | undefined} */ value) => (value === undefined ? "–" : shown(value));
  const pair = (/** @type {number[] | undefined} */ places) =>
    places ? `cosine of ${uses[places[0]].name} and ${uses[places[1]].name}` : "needs two of them";
  const pairs = (uses.length * (uses.length - 1)) / 2;
  return tiles([
    ["Type row, at every place", figure(types?.least.value), "least cosine with itself"],
    ["Tokens, least alike", figure(tokens?.least.value), pair(tokens?.least.pair)],
    ["Tokens, on average", figure(tokens?.mean), tokens ? `cosine over ${count(pairs, "pair")}` : "needs two of them"],
    ["Tokens, most alike", figure(tokens?.most.value), pair(tokens?.most.pair)],
  ]);
}

/** The tokens of the sentences that are not of the word. @param {Item[]} items @param {Use[]} uses */
function others(items, uses) {
  const used = new Set(uses.flatMap(({ item, word }) => word.places.map((place) => item.vectors[place])));
  return items
    .flatMap((item, i) =>
      item.tokens.map((token, place) => {
        const name = `${token.text} (${i + 1})`;
        return { name, kind: "other", note: name, vector: item.vectors[place], special: token.special };
      }),
    )
    .filter(({ special, vector }) => !special && !used.has(vector))
    .slice(0, MOST_OTHERS);
}

/** @param {string} name @param {boolean} checked @param {(on: boolean) => void} set */
function checkbox(name, checked, set) {
  const box = h("input", { type: "checkbox", checked, onchange: () => set(box.checked) });
  return h("label", {}, box, ` ${name}`);
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
  return items.flatMap((item, i) =>
    item.words
      .filter((found) => fold(found.text) === wanted)
      .map((found, nth, all) => ({
        item,
        word: found,
        vector: mean(found.places.map((place) => item.vectors[place])),
        name: all.length > 1 ? `${i + 1}${"abcdefghijklmnopqrstuvwxyz"[nth] ?? `.${nth + 1}`}` : String(i + 1),
      })),
  );
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
      { dir: "auto" },
      before.length > 60 ? `…${before.slice(-58).join("")}` : before.join(""),
      h("mark", {}, word.text),
      after.length > 60 ? `${after.slice(0, 58).join("")}…` : after.join(""),
    ),
  );
}
