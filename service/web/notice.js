/** What went wrong, in words that say what to do. */

import { ServiceError } from "./api.js";
import { count } from "./figures.js";
import { h } from "./dom.js";

/**
 * Return the words for an error.
 *
 * @param {any} error
 * @returns {string}
 */
export function words(error) {
  if (!(error instanceof ServiceError)) return `The page failed: ${error.message}`;
  const said = sentence(error.message);
  switch (error.status) {
    case 0:
      return "The service gives no answer. Is it running, and is the network up?";
    case 401:
      return "The service needs an API key.";
    case 413:
      return `That is too much for one request: ${error.message}.`;
    case 429:
      return busy(error.retryAfter ?? 1);
    case 503:
      return `The service is not ready: ${error.message}.`;
    case 504:
      return "The service did not get to it in time. Try again, or send less.";
    default:
      return `${said} (${error.status} ${error.code})`;
  }
}

/** @param {number} seconds Until it is asked again. */
export const busy = (seconds) => `The service is busy. It is asked again in ${count(Math.ceil(seconds), "second")}.`;

/** @param {string} text */
export function sentence(text) {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

/**
 * Return an element that says what went wrong, with a button that tries again.
 *
 * @param {string} text
 * @param {(() => void) | null} [again]
 * @param {string} [name] Of the button.
 */
export function notice(text, again = null, name = "Try again") {
  return h(
    "p",
    { class: "notice" },
    h("span", {}, text),
    again && h("button", { type: "button", onclick: again }, name),
  );
}
