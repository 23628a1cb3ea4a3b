/** The service: its routes, its errors, and the key that opens it. */

/** @typedef {import("./text.js").Token} Token */
/** @typedef {{label: string, score: number}} Score */
/** @typedef {{code: string, message: string}} Failure */

const UNREACHABLE = { code: "unreachable", message: "the service gives no answer" };
const SINGLE_TEXT = new Set(["text_empty", "text_invalid", "text_too_long", "inference_failed"]);

/** An answer that is an error, or none at all (status 0). */
export class ServiceError extends Error {
  /**
   * @param {number} status
   * @param {Failure} failure
   * @param {number | null} retryAfter In seconds.
   */
  constructor(status, failure, retryAfter = null) {
    super(failure.message);
    this.status = status;
    this.code = failure.code;
    this.retryAfter = retryAfter;
  }
}

/** What the page asks. The key is a private field: no storage, no address and no element ever holds it. */
export class Service {
  /** @type {string | null} */
  #key = null;
  #askForKey;
  /** @type {Promise<string | null> | null} */
  #asking = null;
  #declined = false; // there was no key to be had: nobody is asked again and again

  keyed = false; // the service has asked for a key

  /** @param {(reason: string) => Promise<string | null>} askForKey Gives null where there is none. */
  constructor(askForKey) {
    this.#askForKey = askForKey;
  }

  get hasKey() {
    return this.#key !== null;
  }

  forgetKey() {
    this.#key = null;
  }

  /** Ask for a key when the next request needs one, although none was given before. */
  mayAskAgain() {
    this.#declined = false;
  }

  /** @param {AbortSignal} [signal] */
  info(signal) {
    return this.#request("/v1/info", null, signal);
  }

  /**
   * Label texts and give the vector of every token.
   *
   * @param {string[]} texts
   * @param {AbortSignal} [signal]
   */
  analyze(texts, signal) {
    return this.#items("/v1/analyze", { inputs: texts, embeddings: ["tokens"], encoding_format: "base64" }, signal);
  }

  /**
   * Label texts.
   *
   * @param {string[]} texts
   * @param {{top_k?: number | null, threshold?: number | null}} options
   * @param {AbortSignal} [signal]
   */
  classify(texts, options, signal) {
    return this.#items("/v1/classify", { inputs: texts, ...options }, signal);
  }

  /**
   * Say what each token contributed to a label.
   *
   * @param {string} text
   * @param {string | null} label The best one by default.
   * @param {AbortSignal} [signal]
   */
  explain(text, label, signal) {
    return this.#items("/v1/explain", { inputs: [text], label }, signal);
  }

  /**
   * Give the rows of the embedding matrix that words begin from.
   *
   * @param {string[]} words
   * @param {AbortSignal} [signal]
   */
  types(words, signal) {
    return this.#items("/v1/types", { inputs: words, encoding_format: "base64" }, signal);
  }

  /** A request of a single bad text fails as a whole: here it is that text's error, as among several. */
  async #items(/** @type {string} */ path, /** @type {{inputs: string[]}} */ body, /** @type {AbortSignal} */ signal) {
    try {
      return await this.#request(path, body, signal);
    } catch (error) {
      if (error instanceof ServiceError && body.inputs.length === 1 && SINGLE_TEXT.has(error.code)) {
        return { model: null, results: [{ status: "error", error: { code: error.code, message: error.message } }] };
      }
      throw error;
    }
  }

  /** @returns {Promise<any>} */
  async #request(/** @type {string} */ path, /** @type {object | null} */ body, /** @type {AbortSignal} */ signal) {
    for (;;) {
      const key = this.#key;
      const response = await this.#fetch(path, body, signal);
      const answer = await response.json().catch((error) => {
        if (error.name === "AbortError") throw error;
        if (response.ok) throw new ServiceError(0, UNREACHABLE); // the connection broke within the answer
        return {};
      });
      if (response.ok) return answer;
      const failure = answer.error ?? {
        code: "unknown",
        message: `the answer has status ${response.status} and no words`,
      };
      const wait = Number(response.headers.get("retry-after"));
      const error = new ServiceError(response.status, failure, wait > 0 ? wait : null);
      if (response.status !== 401) throw error;
      this.keyed = true;
      if (key !== this.#key) continue; // somebody else has entered one meanwhile
      this.#key = null;
      if (this.#declined) throw error;
      this.#asking ??= this.#askForKey(key === null ? "" : error.message).finally(() => (this.#asking = null));
      const given = await this.#asking;
      this.#declined = given === null;
      if (given === null) throw error;
      this.#key = given;
      if (signal?.aborted) throw new DOMException("no longer wanted", "AbortError");
    }
  }

  async #fetch(/** @type {string} */ path, /** @type {object | null} */ body, /** @type {AbortSignal} */ signal) {
    /** @type {Record<string, string>} */
    const headers = body ? { "content-type": "application/json" } : {};
    if (this.#key !== null) headers.authorization = `Bearer ${this.#key}`;
    const options = { method: body ? "POST" : "GET", headers, signal, credentials: "omit", cache: "no-store" };
    try {
      return await fetch(path, { ...options, body: body ? JSON.stringify(body) : undefined });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServiceError(0, UNREACHABLE);
    }
  }
}

/**
 * Ask again while the service is busy, as late as it asks for.
 *
 * @template T
 * @param {() => Promise<T>} ask
 * @param {AbortSignal} signal
 * @param {(seconds: number) => void} waiting Is told for how long.
 * @returns {Promise<T>}
 */
export async function patiently(ask, signal, waiting) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof ServiceError) || error.status !== 429) throw error;
      const seconds = error.retryAfter ?? 1;
      waiting(seconds);
      await pause(seconds * 1000, signal);
    }
  }
}

/** @param {number} milliseconds @param {AbortSignal} signal */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("no longer wanted", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve(undefined);
    }, milliseconds);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}

/** @param {unknown} error */
export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";
