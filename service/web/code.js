/** The requests of the page as commands to copy. */

import { announce, the } from "./dom.js";
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

  /** @param {string[]} texts */
  show(texts) {
    this.#texts = texts;
    this.write();
  }

  write() {
    const route = /** @type {keyof typeof BODIES} */ (the("route").value);
    const inputs = route === "types" ? [this.#word() || "word"] : this.#texts.length ? this.#texts : ["A sentence."];
    const { keyed } = this.#service;
    const request = { url: `${location.origin}/v1/${route}`, body: { inputs, ...BODIES[route] }, keyed };
    the("curl").textContent = curl(request);
    the("python").textContent = python(request);
    the("code-key").textContent = keyed ? ` They read your API key from the variable ${KEY_VARIABLE}.` : "";
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
