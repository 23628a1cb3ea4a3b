/** What the model is, from what the service says of it. */

import { breakable, fill, h, the } from "./dom.js";
import { count, percent, whole } from "./figures.js";
import { scroller, table, tiles } from "./parts.js";

const PAIRS_BASE = new Set(["minilm", "sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"]);
const MEASURED = ["test", "data", "cross-validation", "dev"]; // in this order the figures count most
const NAMES = { test: "test rows", dev: "development rows", data: "rows", "cross-validation": "rows, cross-validated" };

const FLATTERS = "Those rows chose the epoch and the calibration, so their figures flatter.";
const PAIRS =
  "Its base, all-MiniLM-L6-v2, comes from a BERT that learnt to predict masked words in unlabelled text. It was " +
  "distilled into a small model, which was then trained further on pairs of sentences that belong together. So what " +
  "these vectors show is not the work of masked words alone.";

/** @param {any} info */
export function showModel(info) {
  const main = MEASURED.find((name) => info.metrics[name]);
  document.title = `${info.name} · Bertrand`;
  the("model-name").textContent = info.name;
  fill(the("model-claim"), claim(info, main));
  fill(
    the("facts"),
    ...facts({
      Version: code(info.version),
      Precision: info.precision,
      Base: code(baseName(info)),
      Labels: whole(info.labels.length),
      Reads: count(info.max_tokens, "token"),
    }),
  );
  fill(the("card"), ...card(info, main));
}

/** @param {any} info @param {string | undefined} main */
function claim(info, main) {
  const several = info.problem_type === "multi_label";
  const none = !several && info.thresholds ? ", or none" : "";
  const gives = `Gives a text ${several ? "any number" : "one"} of ${count(info.labels.length, "label")}${none}.`;
  if (!main) return `${gives} Nothing was measured.`;
  const { accuracy, rows } = info.metrics[main];
  const right = several ? "All labels are right" : "Right";
  return `${gives} ${right} for ${percent(accuracy)} of ${measuredOn(rows, main)}.`;
}

/** @param {any} info @param {string | undefined} main */
function card(info, main) {
  const nothing = h("p", {}, "No labelled rows were given, so nothing was measured.");
  const limits = {
    Texts: whole(info.max_inputs),
    "Characters of a text": whole(info.max_text_characters),
    Bytes: whole(info.max_body_bytes),
    "Tokens that wait": whole(info.max_queue_tokens),
    Time: count(info.request_timeout, "second"),
  };
  return [
    main && figures(info.metrics[main], main),
    main === "dev" && h("p", { class: "soft" }, FLATTERS),
    h("h3", {}, "What it is"),
    h("dl", { class: "sheet" }, ...facts(sheet(info))),
    ...origin(info),
    h("h3", {}, "Measured on"),
    Object.keys(info.metrics).length ? metricsTable(info.metrics) : nothing,
    h("h3", {}, "Labels"),
    labels(info),
    h("h3", {}, "What one request may hold"),
    h("dl", { class: "sheet" }, ...facts(limits)),
  ];
}

/** @param {any} metrics @param {string} main */
function figures(metrics, main) {
  const before = metrics.ece_before === undefined ? "" : `; ${figure(metrics.ece_before)} before calibration`;
  return tiles([
    ["Accuracy", percent(metrics.accuracy), interval(metrics.accuracy_interval)],
    ["Macro-F1", figure(metrics.macro_f1), measuredOn(metrics.rows, main)],
    ["Calibration error", figure(metrics.ece), `ECE${before}`],
  ]);
}

/** @param {any} info */
function sheet(info) {
  const one = info.thresholds ? "one label, or none where it is not sure enough" : "one label";
  return {
    Name: info.name,
    Version: code(info.version),
    Made: info.created.slice(0, 10),
    "Base model": code(baseName(info)),
    Precision: `${info.precision}${info.precisions.length > 1 ? ` (of ${info.precisions.join(", ")})` : ""}`,
    Gives: info.problem_type === "multi_label" ? "any number of labels" : one,
    Reads: `the first ${count(info.max_tokens, "token")} of a text`,
    Vectors: `${whole(info.hidden_size)} numbers a token`,
    Temperature: figure(info.temperature),
  };
}

/** @param {number} rows @param {string} name */
const measuredOn = (rows, name) => `${whole(rows)} ${NAMES[/** @type {keyof typeof NAMES} */ (name)]}`;

/** Where its knowledge of language comes from. @param {any} info */
function origin(info) {
  if (!PAIRS_BASE.has(info.base_model)) return [];
  return [h("h3", {}, "Where it began"), h("p", {}, PAIRS)];
}

/** @param {any} info */
function labels({ labels, thresholds }) {
  return h(
    "ul",
    { class: "names" },
    ...labels.map((/** @type {string} */ label, /** @type {number} */ i) =>
      h("li", {}, ...breakable(label), thresholds && h("span", { class: "soft" }, ` from ${percent(thresholds[i])}`)),
    ),
  );
}

/** @param {Record<string, any>} metrics */
function metricsTable(metrics) {
  const heads = ["Rows", "How many", "Accuracy", "95 % interval", "Macro-F1", "ECE"].map((name) => ({ name }));
  const rows = Object.entries(metrics).map(([name, of]) => {
    const shown = [whole(of.rows), percent(of.accuracy), interval(of.accuracy_interval) || "–"];
    return [name, ...shown, figure(of.macro_f1), figure(of.ece)];
  });
  return scroller("Figures", table(heads, rows));
}

/** @param {any} info */
const baseName = ({ base_model }) => base_model.split("/").slice(-2).join("/");

/** @param {string} text */
const code = (text) => h("code", {}, text);

/** @param {number | undefined} value */
const figure = (value) => (typeof value === "number" ? value.toFixed(3) : "–");

/** @param {[number, number] | undefined} of */
const interval = (of) => (of ? `${percent(of[0])} to ${percent(of[1])}` : "");

/** @param {Record<string, any>} of */
const facts = (of) => Object.entries(of).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)));
