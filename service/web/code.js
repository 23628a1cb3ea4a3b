/** The requests of the page as commands to copy. */

import { chunks } from "./batch.js";
import { announce, the } from "./dom.js";
import { count, whole } from "./figures.js";
import { curl, KEY_VARIABLE, python } from "./snippets.js";

const BODIES = {
  classify: { top_k: 3 },
  analyze: { top_k: 3, embeddings: ["tokens"] },
  explain: { label: null },
  types: {},
};

export class Code {
  /** @type {string[]} */
  #texts = [];
  #info = /** @type {any} */ (null);
  #service;
  #word;

  /**
   * @param {import("./api.js").Service} service
   * @param {() => string} word The one whose type row is asked for.
   */
  constructor(service, word) {
    this.#service = service;
    this.#word = word;
    the("route").addEventListener("change", () => this.write());
    for (const name of ["curl", "python"]) the(`copy-${name}`).addEventListener("click", () => copy(name));
  }

  /** @param {string[]} texts @param {any} info What one request may hold. */
  show(texts, info) {
    this.#texts = texts;
    this.#info = info;
    this.write();
  }

  write() {
    const route = /** @type {keyof typeof BODIES} */ (the("route").value);
    const inputs = this.#inputs(route);
    const { keyed } = this.#service;
    const request = { url: `${location.origin}/v1/${route}`, body: { inputs, ...BODIES[route] }, keyed };
    the("curl").textContent = curl(request);
    the("python").textContent = python(request);
    const all = count(this.#texts.length, "sentence");
    const part = `${inputs.length > 1 ? `first ${whole(inputs.length)}` : "first"} of ${all}`;
    const partly = route !== "types" && inputs.length < this.#texts.length;
    the("code-part").textContent = partly ? ` They hold the ${part}: the others need requests of their own.` : "";
    the("code-key").textContent = keyed ? ` They read your API key from the variable ${KEY_VARIABLE}.` : "";
  }

  /** What the page itself would send in one request. @param {keyof typeof BODIES} route */
  #inputs(route) {
    if (route === "types") return [this.#word() || "word"];
    if (!this.#texts.length) return ["A sentence."];
    // Explained is one sentence at a time: it is read as often as it has tokens.
    return route === "explain" ? this.#texts.slice(0, 1) : chunks(this.#texts, this.#info)[0];
  }
}

/** @param {string} name */
async function copy(name) {
  const [button, code] = [the(`copy-${name}`), the(name)];
  let done = true;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Without TLS a page of another machine has no clipboard: the old way, by a selection, which stays.
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection()?.removeAllRanges();
    getSelection()?.addRange(range);
    done = document.execCommand("copy");
  }
  button.textContent = done ? "Copied" : "Selected";
  const title = the(`${name}-title`).textContent; // two in a row are to be heard as two
  announce(`${title} is ${done ? "copied" : "selected: copy it with the keyboard"}.`);
  setTimeout(() => (button.textContent = "Copy"), 2000);
}
