/** The dialog that asks for an API key. */

import { the } from "./dom.js";

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
      given = field.value.trim() || null;
      if (given) dialog.close();
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
