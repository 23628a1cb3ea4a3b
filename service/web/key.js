/** The dialog that asks for an API key. */

import { the } from "./dom.js";

const SENT = /^[\x21-\x7e]+$/; // what a key may be made of: a header holds nothing else

/**
 * Ask for a key.
 *
 * @param {string} reason Why the last one did not do; empty where there was none.
 * @returns {Promise<string | null>} Null: the dialog was left.
 */
export function askForKey(reason) {
  const [dialog, form, field, refused] = [the("key-dialog"), the("key-form"), the("key"), the("key-refused")];
  refused.hidden = !reason;
  refused.textContent = reason ? "That key does not open the service." : "";
  return new Promise((resolve) => {
    /** @type {string | null} */
    let given = null;
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      const key = field.value.trim();
      if (SENT.test(key)) {
        given = key;
        dialog.close();
        return;
      }
      refused.hidden = false;
      refused.textContent =
        "That is no key: it holds a character that no key has, maybe one that is not seen. Copy it again.";
      field.select();
    };
    const cancel = () => dialog.close();
    const closed = () => {
      field.value = ""; // the element forgets it at once
      form.removeEventListener("submit", submit);
      the("key-cancel").removeEventListener("click", cancel);
      resolve(given);
    };
    form.addEventListener("submit", submit);
    the("key-cancel").addEventListener("click", cancel);
    dialog.addEventListener("close", closed, { once: true });
    dialog.showModal();
  });
}
