/** What several views are made of: tiles with a figure, tables, and regions that scroll. */

import { h } from "./dom.js";

/** @typedef {import("./dom.js").Child} Child */
/** @typedef {{name: string, text?: boolean}} Head `text`: of a column of words, not of figures */

/**
 * Return figures that stand out.
 *
 * @param {[name: string, figure: string, note: string][]} all
 */
export function tiles(all) {
  const tile = (/** @type {[string, string, string]} */ [name, figure, note]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, figure, h("small", {}, note)));
  return h("dl", { class: "tiles" }, ...all.map(tile));
}

/**
 * Return a table.
 *
 * @param {Head[]} heads
 * @param {Child[][]} rows A cell for each head.
 * @param {{caption?: string, heading?: boolean, kind?: string}} [options] `heading`: the first cell of a row names it.
 */
export function table(heads, rows, { caption, heading = true, kind } = {}) {
  const align = ({ text }) => (text ? "text" : null);
  const cell = (/** @type {Child} */ child, /** @type {number} */ i) =>
    heading && i === 0 ? h("th", { scope: "row" }, child) : h("td", { class: align(heads[i]) }, child);
  return h(
    "table",
    { class: kind },
    caption && h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col", class: align(head) }, head.name)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map(cell)))),
  );
}

/**
 * Return a region that scrolls by itself, by keyboard too.
 *
 * @param {string} name For those who do not see it.
 * @param {Child} child
 */
export function scroller(name, child) {
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": name }, child);
}

/** Return what closes sections of detail. @param {string} summary @param {Child} child */
export function details(summary, child) {
  return h("details", {}, h("summary", {}, summary), child);
}
