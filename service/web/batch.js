/** Many texts, labelled in requests that the service takes, whatever comes in between. */

import { patiently, ServiceError } from "./api.js";

/**
 * @typedef {object} Result
 * @property {"ok" | "error"} status
 * @property {{code: string, message: string}} error Where there is one; nothing else then.
 * @property {string | null} label
 * @property {number | null} score
 * @property {{label: string, score: number}[]} scores
 * @property {boolean} truncated
 * @property {number} token_count
 */

const MOST_TEXTS = 64; // a request: small enough for progress that moves and a cancel that is obeyed
const SHARE = 0.5; // of what the service takes that one request fills: others ask it too
const TOKENS_A_CHARACTER = 0.5;

/**
 * Label texts one request after another.
 *
 * @param {import("./api.js").Service} service
 * @param {string[]} texts
 * @param {any} info Of the service: what one request may hold.
 * @param {{signal: AbortSignal, waiting: (seconds: number) => void}} options
 * @returns {AsyncGenerator<{results: Result[], version: string | null}>} In the order given.
 */
export async function* labelled(service, texts, info, { signal, waiting }) {
  const options = { top_k: info.problem_type === "multi_label" ? null : 1 };
  const queue = chunks(texts, info);
  for (let chunk = queue.shift(); chunk; chunk = queue.shift()) {
    const inputs = chunk;
    try {
      const { results, model } = await patiently(() => service.classify(inputs, options, signal), signal, waiting);
      yield { results, version: model?.version ?? null };
    } catch (error) {
      if (!(error instanceof ServiceError) || !["body_too_large", "inputs_too_many"].includes(error.code)) throw error;
      if (inputs.length > 1) {
        const half = Math.ceil(inputs.length / 2);
        queue.unshift(inputs.slice(0, half), inputs.slice(half));
      } else {
        const failed = { status: "error", error: { code: error.code, message: error.message } };
        yield { results: [/** @type {any} */ (failed)], version: null };
      }
    }
  }
}

/**
 * Part texts into what one request may hold.
 *
 * @param {string[]} texts
 * @param {{max_inputs: number, max_body_bytes: number, max_queue_tokens: number}} limits
 * @returns {string[][]}
 */
export function chunks(texts, { max_inputs, max_body_bytes, max_queue_tokens }) {
  const encoder = new TextEncoder();
  const count = Math.min(MOST_TEXTS, max_inputs);
  const most = { texts: count, bytes: SHARE * max_body_bytes, tokens: SHARE * max_queue_tokens };
  /** @type {string[][]} */
  const parts = [];
  let held = { texts: 0, bytes: 0, tokens: 0 };
  for (const text of texts) {
    const bytes = encoder.encode(JSON.stringify(text)).length + 1; // a comma follows
    const more = { texts: 1, bytes, tokens: text.length * TOKENS_A_CHARACTER + 2 };
    const next = { texts: held.texts + 1, bytes: held.bytes + more.bytes, tokens: held.tokens + more.tokens };
    const full = next.texts > most.texts || next.bytes > most.bytes || next.tokens > most.tokens;
    if (full || !parts.length) parts.push([]);
    held = full ? more : next;
    /** @type {string[]} */ (parts.at(-1)).push(text);
  }
  return parts;
}
