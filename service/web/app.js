/** The explorer page: what is typed is read, and every view shows its side of the answer. */

import { isAbort, patiently, pause, Service } from "./api.js";
import { Code } from "./code.js";
import { Compare } from "./compare.js";
import { announce, fill, h, refill, the } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { count, percent, whole } from "./figures.js";
import { File } from "./file.js";
import { askForKey } from "./key.js";
import { Labels } from "./labels.js";
import { showModel } from "./model.js";
import { busy, notice, words as inWords } from "./notice.js";
import { Reading } from "./reading.js";
import { tabs } from "./tabs.js";
import { sentences } from "./text.js";
import { Types } from "./types.js";

/** @typedef {import("./reading.js").Item} Item */

const TYPING_ENDS = 250; // milliseconds after the last key
const SETTLES = 1000; // milliseconds until another model is asked to read all: servers may not change together
const MOST = 50; // sentences that are read as they are typed
const TOLD = 3; // labels that are said aloud

const service = new Service(async (reason) => {
  const key = await askForKey(reason);
  the("key-forget").hidden = key === null;
  return key;
});
const reading = new Reading(service);
const labels = new Labels(
  service,
  (word) => {
    types.pick(word);
    views.choose("types");
    the("tab-types").focus();
  },
  readAgain,
);
const types = new Types(service, readAgain);
const compare = new Compare();
const file = new File(service);
const code = new Code(service, () => the("word").value.trim());
/** @type {Record<string, {setVisible: (visible: boolean) => void}>} */
const drawn = { labels, types, compare };
const field = the("sentences");

let info = /** @type {any} */ (null);
let current = new AbortController(); // of what is being read

const views = tabs((panel) => {
  for (const [name, view] of Object.entries(drawn)) view.setVisible(name === panel);
  if (panel === "code") code.write();
});

/** Read what stands in the field, once nothing was typed for a moment; what was being read before is given up. */
async function read(delay = 0) {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  the("reading").textContent = "Reading…";
  try {
    if (delay) await pause(delay, signal);
    const lines = sentences(field.value);
    const texts = lines.slice(0, MOST);
    the("cards").setAttribute("aria-busy", "true");
    const ask = async () => {
      info ??= await learn(signal);
      return texts.length ? await reading.read(texts, info, signal) : [];
    };
    const started = performance.now();
    const items = await patiently(ask, signal, (seconds) => complain(busy(seconds)));
    if (reading.version !== null && reading.version !== info.version) info = await learn(signal);
    refill(the("composer-notice"), field);
    show(items, lines.length, performance.now() - started);
  } catch (error) {
    if (isAbort(error)) return;
    the("reading").textContent = the("cards").children.length ? "What is shown was read before." : "";
    const again = () => {
      service.mayAskAgain();
      read();
    };
    complain(inWords(error), again, error.status === 401 ? "Enter the key" : undefined);
  } finally {
    if (!signal.aborted) the("cards").removeAttribute("aria-busy");
  }
}

/** Forget what a model said that no longer answers, and read all with the one that does. */
function readAgain() {
  reading.forget();
  info = null;
  read(SETTLES);
}

/** Ask what the model is. @param {AbortSignal} signal */
async function learn(signal) {
  const answer = await service.info(signal);
  showModel(answer);
  file.show(answer);
  return answer;
}

/** @param {Item[]} items @param {number} lines @param {number} took In milliseconds. */
function show(items, lines, took) {
  const read = `${count(items.length, "sentence")} read in ${whole(Math.max(1, Math.round(took)))} ms.`;
  const more = `The first ${MOST} of ${whole(lines)} are read here; the others fit a CSV file.`;
  the("reading").textContent = items.length ? `${read} ${lines > items.length ? more : ""}` : "Nothing to read yet.";
  labels.show(items, info);
  types.show(items, info);
  compare.show(items);
  code.show(
    items.map(({ text }) => text),
    info,
  );
  announce(told(items));
}

/** What a screen reader says of the sentences: the labels, and not how long it took. @param {Item[]} items */
function told(items) {
  if (!items.length) return "";
  const first = items.slice(0, TOLD).map(({ error, label, given }) => {
    if (error) return "no answer";
    return label === null ? "no label" : `${label} ${percent(given[0].score)}`;
  });
  return `${first.join("; ")}${items.length > TOLD ? `; and ${items.length - TOLD} more` : ""}.`;
}

/** @param {string} words @param {(() => void) | null} [again] @param {string} [name] */
function complain(words, again = null, name = undefined) {
  refill(the("composer-notice"), field, notice(words, again, name));
}

fill(
  the("examples"),
  ...EXAMPLES.map(({ name, word, text }) =>
    h(
      "button",
      {
        type: "button",
        onclick: () => {
          field.value = text;
          types.pick(word);
          read();
        },
      },
      name,
    ),
  ),
);
the("key-forget").addEventListener("click", () => {
  service.forgetKey();
  service.mayAskAgain();
  the("key-forget").hidden = true;
  announce("The key is forgotten.");
  field.focus();
});
field.addEventListener("input", () => read(TYPING_ENDS));

// A file that misses its place is not to take the page's.
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (/** @type {any} */ event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });
}

// A browser that comes back to the page may have kept what was typed.
if (!field.value) field.value = EXAMPLES[0].text;
types.pick(EXAMPLES[0].word);
views.choose(views.current());
read();
