/** A heat map that is a table: the figures are in the cells, the colour repeats them. */

import { cosine, cosineShort } from "./figures.js";
import { h } from "./dom.js";
import { scroller } from "./parts.js";

const ROOMY = 8; // columns whose names fit side by side

/** @typedef {{name: string, note?: string}} Head */

/**
 * Draw a matrix of cosines.
 *
 * @param {string} caption
 * @param {Head[]} down
 * @param {Head[]} across
 * @param {number[][]} values One row for each of `down`.
 * @param {{framed?: (row: number, column: number) => boolean}} [options] `framed`: cells that stand out.
 */
export function heatmap(caption, down, across, values, { framed = () => false } = {}) {
  const table = h(
    "table",
    { class: `heat${across.length > ROOMY ? " long" : ""}` },
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, h("td"), ...across.map((head) => h("th", { scope: "col" }, titled(head))))),
    h(
      "tbody",
      {},
      ...values.map((row, i) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, titled(down[i])),
          ...row.map((value, j) =>
            h(
              "td",
              {
                class: [value < 0 && "against", framed(i, j) && "framed"].filter(Boolean).join(" ") || null,
                style: { "--share": Math.abs(value).toFixed(3) },
                title: `${down[i].name} · ${across[j].name}: ${cosine(value)}`,
              },
              cosineShort(value),
              framed(i, j) && h("span", { class: "unseen" }, " best match"),
            ),
          ),
        ),
      ),
    ),
  );
  return scroller(caption, table);
}

/** @param {Head} head */
function titled({ name, note }) {
  return h("span", {}, name, note ? h("small", {}, ` ${note}`) : null);
}
