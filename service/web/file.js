/** A CSV file: read, labelled, shown and given back with nothing lost. */

import { isAbort } from "./api.js";
import { labelled } from "./batch.js";
import { decode, format, parse } from "./csv.js";
import { announce, breakable, fill, h, refill, the } from "./dom.js";
import { count, percent, whole } from "./figures.js";
import { busy, notice, words as inWords } from "./notice.js";
import { scroller, table } from "./parts.js";
import { shortened } from "./text.js";

/** @typedef {import("./csv.js").Row} Row */
/** @typedef {import("./csv.js").Table} Table */
/** @typedef {import("./batch.js").Result} Result */
/** @typedef {{row: Row, text: string | null, result: Result | null, flaw: string | null}} Line */

const MOST_BYTES = 5_000_000;
const PREVIEWED = 20; // rows
const FLAWS_SHOWN = 10;
const TEXT_NAMES = /^(text|sentence|message|question|query|utterance|comment|review|body|subject)s?$/i;

export class File {
  #service;
  #info = /** @type {any} */ (null);
  #running = new AbortController();

  /** @param {import("./api.js").Service} service */
  constructor(service) {
    this.#service = service;
    const input = the("upload");
    input.addEventListener("click", () => (input.value = "")); // a file that was mended may be chosen again
    input.addEventListener("change", () => input.files.length && this.#open(input.files[0]));
    const drop = the("drop");
    for (const name of ["dragenter", "dragover"]) {
      drop.addEventListener(name, (/** @type {Event} */ event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
    drop.addEventListener("drop", (/** @type {DragEvent} */ event) => {
      event.preventDefault();
      if (event.dataTransfer?.files.length) this.#open(event.dataTransfer.files[0]);
    });
  }

  /** @param {any} info */
  show(info) {
    this.#info = info;
  }

  /** @param {globalThis.File} file */
  async #open(file) {
    this.#running.abort();
    fill(the("job"));
    fill(the("file-notice"));
    try {
      if (file.size > MOST_BYTES) {
        const limit = `at most ${whole(MOST_BYTES)}; bertrand score takes files of any size`;
        throw new Error(`the file has ${whole(file.size)} bytes, ${limit}`);
      }
      const table = parse(decode(await file.arrayBuffer()));
      if (!table.rows.length) throw new Error("the file has no rows");
      new Job(
        this.#service,
        () => this.#info,
        file.name,
        table,
        (running) => (this.#running = running),
      );
    } catch (error) {
      fill(the("file-notice"), notice(`${file.name}: ${error.message}.`));
    }
  }
}

/** One file being labelled. */
class Job {
  #settings = h("form", { class: "settings" });
  #flaws = h("div");
  #state = h("div", { class: "running" });
  #result = h("div");
  /** @type {Line[]} */
  #lines = [];
  #versions = new Set();

  /**
   * @param {import("./api.js").Service} service
   * @param {() => any} info
   * @param {string} name
   * @param {Table} table
   * @param {(running: AbortController) => void} running Is given what ends the job.
   */
  constructor(service, info, name, table, running) {
    this.service = service;
    this.info = info;
    this.name = name;
    this.table = table;
    this.running = running;
    this.header = h("input", { type: "checkbox", checked: true });
    this.column = h("select", { id: "column" });
    this.button = h("button", { type: "submit", class: "main" });
    this.header.addEventListener("change", () => this.#prepare());
    this.column.addEventListener("change", () => this.#read());
    this.#settings.append(
      h("label", { for: "column" }, "Text is in"),
      this.column,
      h("label", {}, this.header, " the first row names the columns"),
      this.button,
    );
    this.#settings.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#run();
    });
    fill(the("job"), h("h3", {}, name), this.#settings, this.#flaws, this.#state, this.#result);
    this.#prepare();
    announce(`${name} has ${count(this.#lines.length, "row")}.`);
  }

  get #width() {
    return this.table.rows[0].fields.length;
  }

  get #names() {
    const first = this.table.rows[0].fields;
    return this.header.checked ? first : first.map((_, i) => `column ${i + 1}`);
  }

  #prepare() {
    const names = this.#names;
    const guess = names.findIndex((name) => TEXT_NAMES.test(name.trim()));
    const chosen = guess < 0 ? longest(this.table.rows.slice(this.header.checked ? 1 : 0), names.length) : guess;
    fill(
      this.column,
      ...names.map((name, i) => h("option", { value: i, selected: i === chosen }, name || `column ${i + 1}`)),
    );
    this.#read();
  }

  #read() {
    const column = Number(this.column.value);
    const { rows, blank } = this.table;
    this.#lines = rows.slice(this.header.checked ? 1 : 0).map((row) => {
      const fields = row.fields.length;
      const uneven = `fields_uneven: ${count(fields, "field")} where the first row has ${this.#width}`;
      const flaw = row.flaw ?? (fields === this.#width ? null : uneven);
      return { row, text: flaw ? null : row.fields[column], result: null, flaw };
    });
    this.#versions.clear();
    const head = this.header.checked ? rows[0] : null;
    const flawed = this.#lines.filter(({ flaw }) => flaw);
    const good = this.#lines.length - flawed.length;
    this.button.textContent = `Label ${count(good, "row")}`;
    this.button.disabled = !good;
    fill(
      this.#flaws,
      blank > 0 && h("p", { class: "soft" }, `${count(blank, "blank line")} left out.`),
      head?.flaw && notice(`The row that names the columns is damaged: line ${whole(head.line)}: ${head.flaw}.`),
      flawed.length > 0 &&
        h(
          "div",
          { class: "notice" },
          h("p", {}, `${count(flawed.length, "row")} cannot be read as the others, and will stay without a label:`),
          h(
            "ul",
            {},
            ...flawed.slice(0, FLAWS_SHOWN).map(({ row, flaw }) => h("li", {}, `line ${whole(row.line)}: ${flaw}`)),
            flawed.length > FLAWS_SHOWN && h("li", {}, `and ${whole(flawed.length - FLAWS_SHOWN)} more`),
          ),
        ),
    );
    fill(this.#state);
    fill(this.#result, this.#preview("The file, as it was read"));
  }

  async #run() {
    if (!this.info()) {
      fill(this.#state, notice("The service has not said yet what it is; try again in a moment."));
      return;
    }
    this.service.mayAskAgain();
    const controller = new AbortController();
    this.running(controller);
    const open = this.#lines.filter(({ flaw, result }) => !flaw && !result);
    const total = this.#lines.filter(({ flaw }) => !flaw).length;
    const bar = h("progress", { max: total, value: total - open.length, "aria-label": "Rows that are labelled" });
    const figure = h("span", { class: "figure" });
    const said = h("span", { class: "soft" });
    const cancel = h("button", { type: "button", onclick: () => controller.abort() }, "Stop");
    const advance = (/** @type {number} */ done) => {
      bar.value = done;
      figure.textContent = `${whole(done)} of ${count(total, "row")}`;
    };
    advance(total - open.length);
    this.#freeze(true);
    fill(this.#state, h("div", { class: "progress" }, bar, figure, cancel, said));
    cancel.focus();
    let done = 0;
    try {
      const waiting = (/** @type {number} */ seconds) => (said.textContent = busy(seconds));
      const options = { signal: controller.signal, waiting };
      const texts = open.map(({ text }) => /** @type {string} */ (text));
      for await (const { results, version } of labelled(this.service, texts, this.info(), options)) {
        said.textContent = "";
        if (version) this.#versions.add(version);
        for (const result of results) open[done++].result = result;
        advance(total - open.length + done);
      }
      this.#conclude();
      refill(this.#state, this.#result.querySelector("button"));
      announce(this.#told());
    } catch (error) {
      const words = isAbort(error) ? "Stopped." : inWords(error);
      const left = total - this.#lines.filter(({ result }) => result).length;
      this.#conclude();
      const again = notice(`${words} ${count(left, "row")} left to label.`, () => this.#run(), "Go on");
      refill(this.#state, this.column, again);
      announce(words);
    } finally {
      this.#freeze(false);
    }
  }

  /** Show what was labelled, all of it or not. */
  #conclude() {
    if (this.#lines.some(({ result }) => result)) refill(this.#result, this.column, ...this.#summary());
  }

  /** @param {boolean} frozen */
  #freeze(frozen) {
    for (const control of [this.header, this.column]) control.disabled = frozen;
    this.button.disabled = frozen || this.#lines.every(({ flaw, result }) => flaw || result);
  }

  /** How many rows were labelled, and how many were not although it was tried. */
  #told() {
    const done = this.#lines.filter(({ result }) => result?.status === "ok").length;
    const failed = this.#lines.filter(({ result, flaw }) => flaw || result?.status === "error").length;
    return `${count(done, "row")} labelled${failed ? `, ${whole(failed)} without an answer` : ""}.`;
  }

  #summary() {
    const labels = new Map();
    for (const { result } of this.#lines) {
      if (result?.status !== "ok") continue;
      labels.set(result.label ?? "(no label)", (labels.get(result.label ?? "(no label)") ?? 0) + 1);
    }
    const most = Math.max(...labels.values());
    const ranked = [...labels].sort((one, other) => other[1] - one[1]);
    const save = () => download(this.#labelledName(), this.written());
    const versions = [...this.#versions].join(", ");
    const said = [
      this.#told(),
      this.#versions.size > 1 && `The model changed meanwhile: versions ${versions}.`,
    ];
    return [
      h(
        "div",
        { class: "done" },
        h("p", {}, said.filter(Boolean).join(" ")),
        h("button", { type: "button", class: "main", onclick: save }, "Download as CSV"),
      ),
      h("h3", {}, "Labels"),
      h(
        "ol",
        { class: "scores counts" },
        ...ranked
          .slice(0, 12)
          .map(([label, rows]) =>
            h(
              "li",
              {},
              h("span", { class: "name" }, ...breakable(label)),
              h("span", { class: "figure" }, whole(rows)),
              h(
                "span",
                { class: "bar", "aria-hidden": "true" },
                h("i", { style: { width: `${(100 * rows) / most}%` } }),
              ),
            ),
          ),
      ),
      ranked.length > 12 && h("p", { class: "soft" }, `and ${whole(ranked.length - 12)} more labels`),
      this.#preview("The file, labelled"),
    ];
  }

  /** @param {string} title */
  #preview(title) {
    const shown = this.#lines.slice(0, PREVIEWED);
    const answered = this.#lines.some(({ result }) => result);
    const heads = [{ name: "Line" }, { name: this.#names[Number(this.column.value)] || "Text", text: true }];
    const rows = shown.map(({ row, text, result, flaw }) => {
      const start = shortened(text ?? row.fields.join(this.table.delimiter), 160);
      const cells = [whole(row.line), h("bdi", {}, start)];
      return answered ? [...cells, verdict(result, flaw), score(result)] : cells;
    });
    if (answered) heads.push({ name: "Label", text: true }, { name: "Score" });
    const part = shown.length < this.#lines.length ? `the first ${shown.length} of ` : "";
    const caption = `${title}: ${part}${count(this.#lines.length, "row")}`;
    return scroller(title, table(heads, rows, { caption, heading: false, kind: "rows" }));
  }

  #labelledName() {
    return this.name.replace(/(\.[^.]*)?$/, (ending) => `.labelled${ending || ".csv"}`);
  }

  /** The table with its new columns, named and filled as those of `bertrand score`. */
  written() {
    const several = this.info().problem_type === "multi_label";
    const added = ["label", "score", ...(several ? ["scores"] : []), "status", "error", "truncated", "token_count"];
    const taken = new Set(this.#names);
    let prefix = "";
    while (added.some((name) => taken.has(prefix + name))) prefix += "predicted_";
    const head = [...this.#names, ...added.map((name) => prefix + name)];
    const rows = this.#lines.map(({ row: { fields }, result, flaw }) => {
      const own = fields.slice(0, this.#width);
      while (own.length < this.#width) own.push("");
      // What a row has too many of goes behind the new columns: nothing is lost, and those stay in line.
      return [...own, ...cells(result, flaw, several), ...fields.slice(this.#width)];
    });
    return format(this.header.checked ? [head, ...rows] : rows, this.table);
  }
}

/** @param {Result | null} result @param {string | null} flaw */
function verdict(result, flaw) {
  if (result?.status === "ok") return h("b", {}, ...breakable(result.label ?? "no label"));
  return flaw ?? result?.error.message ?? "–";
}

/** @param {Result | null} result */
const score = (result) => (typeof result?.score === "number" ? percent(result.score) : "–");

/** @param {Result | null} result @param {string | null} flaw @param {boolean} several */
function cells(result, flaw, several) {
  const scores = (/** @type {string} */ value) => (several ? [value] : []);
  const error = flaw ?? (result?.status === "error" ? `${result.error.code}: ${result.error.message}` : "");
  if (error) return ["", "", ...scores(""), "error", error, "", ""];
  if (!result) return ["", "", ...scores(""), "", "", "", ""];
  const best = [result.label ?? "", String(result.score ?? "")];
  return [
    ...best,
    ...scores(JSON.stringify(result.scores)),
    "ok",
    "",
    String(result.truncated),
    String(result.token_count),
  ];
}

/** The column that holds the longest fields. @param {Row[]} rows @param {number} width */
function longest(rows, width) {
  const lengths = Array(width).fill(0);
  for (const { fields } of rows.slice(0, 100))
    fields.slice(0, width).forEach((field, i) => (lengths[i] += field.length));
  return lengths.indexOf(Math.max(...lengths));
}

/** @param {string} name @param {string} text */
function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = h("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
