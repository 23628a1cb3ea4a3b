/** What the service says of sentences: each is asked about once for a version of the model. */

import { chunks } from "./batch.js";
import { words } from "./text.js";
import { rows } from "./vectors.js";

/** @typedef {import("./text.js").Token} Token */
/** @typedef {import("./text.js").Word} Word */
/** @typedef {import("./api.js").Score} Score */
/**
 * @typedef {object} Item
 * @property {string} text
 * @property {string | null} version Of the model that read it.
 * @property {{code: string, message: string} | null} error Instead of all that follows.
 * @property {string | null} label Null where no label reaches its threshold.
 * @property {Score[]} given The labels that the model gives.
 * @property {Score[]} scores Every label, best first.
 * @property {number} tokenCount
 * @property {boolean} truncated
 * @property {Token[]} tokens
 * @property {Float32Array[]} vectors One a token.
 * @property {Word[]} words
 * @property {Map<string | null, any>} explained By label; null is the best one.
 */

const MOST_KEPT = 32e6; // bytes of vectors: 650 sentences of 32 tokens and 384 numbers each, or 20 of 512 and 768

export class Reading {
  #service;
  /** @type {Map<string, Item>} */
  #known = new Map();
  /** @type {string | null} */
  version = null; // of the model that the known sentences were read by

  /** @param {import("./api.js").Service} service */
  constructor(service) {
    this.#service = service;
  }

  /**
   * Read sentences.
   *
   * @param {string[]} texts
   * @param {any} info What the model is, and what one request may hold.
   * @param {AbortSignal} signal
   * @returns {Promise<Item[]>} In the order given.
   */
  async read(texts, info, signal) {
    for (;;) {
      const missing = [...new Set(texts)].filter((text) => !this.#known.has(text));
      const fresh = missing.length ? await this.#ask(missing, info, signal) : [];
      const found = new Map(fresh.map((item) => [item.text, item]));
      const items = texts.map((text) => found.get(text) ?? this.#known.get(text));
      this.#keep(fresh, texts);
      // Another model answered than the one that read the other sentences: those are read again.
      if (items.every((item) => item !== undefined)) return /** @type {Item[]} */ (items);
    }
  }

  /** Know nothing any more: another model answers by now. */
  forget() {
    this.#known.clear();
    this.version = null;
  }

  async #ask(/** @type {string[]} */ texts, /** @type {any} */ info, /** @type {AbortSignal} */ signal) {
    const withholds = info.thresholds || info.problem_type === "multi_label";
    /** @type {Item[]} */
    const items = [];
    for (const part of chunks(texts, info)) {
      const [analysis, all] = await Promise.all([
        this.#service.analyze(part, signal),
        withholds ? this.#service.classify(part, { threshold: 0 }, signal) : null, // the labels that it does not give
      ]);
      const version = analysis.model?.version ?? null;
      if (version !== null && version !== this.version) {
        this.#known.clear();
        this.version = version;
        if (items.length) return this.#ask(texts, info, signal); // what came before is of the other one
      }
      items.push(...part.map((text, i) => itemOf(text, version, analysis.results[i], all?.results[i])));
    }
    return items;
  }

  #keep(/** @type {Item[]} */ fresh, /** @type {string[]} */ wanted) {
    for (const item of fresh) if (!item.error) this.#known.set(item.text, item);
    let held = [...this.#known.values()].reduce((sum, item) => sum + bytesOf(item), 0);
    for (const [text, item] of this.#known) {
      if (held <= MOST_KEPT) break;
      if (wanted.includes(text)) continue;
      this.#known.delete(text);
      held -= bytesOf(item);
    }
  }
}

/** @param {Item} item */
const bytesOf = ({ vectors }) => vectors.reduce((sum, { byteLength }) => sum + byteLength, 0);

/** @param {string} text @param {string | null} version @param {any} result @param {any} all @returns {Item} */
function itemOf(text, version, result, all) {
  if (result.status !== "ok") {
    const nothing = { label: null, given: [], scores: [], tokenCount: 0, truncated: false, tokens: [], vectors: [] };
    return { text, version, error: result.error, ...nothing, words: [], explained: new Map() };
  }
  return {
    text,
    version,
    error: null,
    label: result.label,
    given: result.scores,
    scores: all?.status === "ok" ? all.scores : result.scores,
    tokenCount: result.token_count,
    truncated: result.truncated,
    tokens: result.tokens,
    vectors: rows(result.token_embeddings),
    words: words(text, result.tokens),
    explained: new Map(),
  };
}
