/** What the service says of sentences: each is asked about once for a version of the model. */

import { words } from "./text.js";
import { rows } from "./vectors.js";

/** @typedef {import("./text.js").Token} Token */
/** @typedef {import("./text.js").Word} Word */
/** @typedef {import("./api.js").Score} Score */
/**
 * @typedef {object} Item
 * @property {string} text
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

const MOST_KEPT = 500; // sentences, each some 50 kB

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
   * @param {{thresholds: boolean}} model `thresholds`: whether it may withhold labels, whose scores are asked for apart.
   * @param {AbortSignal} signal
   * @returns {Promise<Item[]>} In the order given.
   */
  async read(texts, model, signal) {
    for (;;) {
      const missing = [...new Set(texts)].filter((text) => !this.#known.has(text));
      const fresh = missing.length ? await this.#ask(missing, model, signal) : [];
      const found = new Map(fresh.map((item) => [item.text, item]));
      const items = texts.map((text) => found.get(text) ?? this.#known.get(text));
      this.#keep(fresh, texts);
      // Another model answered than the one that read the other sentences: those are read again.
      if (items.every((item) => item !== undefined)) return /** @type {Item[]} */ (items);
    }
  }

  async #ask(/** @type {string[]} */ texts, /** @type {{thresholds: boolean}} */ model, /** @type {AbortSignal} */ signal) {
    const [analysis, all] = await Promise.all([
      this.#service.analyze(texts, signal),
      model.thresholds ? this.#service.classify(texts, { threshold: 0 }, signal) : null,
    ]);
    if (analysis.model && analysis.model.version !== this.version) {
      this.#known.clear();
      this.version = analysis.model.version;
    }
    return texts.map((text, i) => itemOf(text, analysis.results[i], all?.results[i]));
  }

  #keep(/** @type {Item[]} */ fresh, /** @type {string[]} */ wanted) {
    for (const item of fresh) if (!item.error) this.#known.set(item.text, item);
    for (const text of this.#known.keys()) {
      if (this.#known.size <= MOST_KEPT) break;
      if (!wanted.includes(text)) this.#known.delete(text);
    }
  }
}

/** @param {string} text @param {any} result @param {any} all @returns {Item} */
function itemOf(text, result, all) {
  if (result.status !== "ok") {
    const nothing = { label: null, given: [], scores: [], tokenCount: 0, truncated: false, tokens: [], vectors: [] };
    return { text, error: result.error, ...nothing, words: [], explained: new Map() };
  }
  return {
    text,
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
