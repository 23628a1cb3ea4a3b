/** Two sentences, token by token. */

import { announce, fill, h, the } from "./dom.js";
import { cosine as shown, whole } from "./figures.js";
import { heatmap } from "./heatmap.js";
import { details, table, tiles } from "./parts.js";
import { shortened } from "./text.js";
import { cosine, cosines, mean } from "./vectors.js";

/** @typedef {import("./reading.js").Item} Item */

const MOST = 64; // tokens of a sentence that are compared
const NAME = 60; // characters of a sentence in a list
const OWN_TOKENS = "The model’s own tokens, such as [CLS], are left out of the table, not of the embeddings.";

export class Compare {
  /** @type {Item[]} */
  #items = [];
  #visible = false;
  #wish = [0, 1]; // the sentences that were chosen, also while they are not there

  constructor() {
    ["first", "second"].forEach((id, i) =>
      the(id).addEventListener("change", () => {
        this.#wish[i] = Number(the(id).value);
        announce(this.#draw());
      }),
    );
    the("swap").addEventListener("click", () => {
      const [first, second] = this.#pair();
      if (first !== second) this.#wish = [second, first];
      announce(this.#draw());
    });
  }

  /** @param {Item[]} items */
  show(items) {
    this.#items = items;
    if (this.#visible) this.#draw();
  }

  /** @param {boolean} visible */
  setVisible(visible) {
    this.#visible = visible;
    if (visible) this.#draw();
  }

  get #choices() {
    return this.#items.map((item, i) => ({ item, i })).filter(({ item }) => !item.error);
  }

  /** The sentences to compare: those that were chosen, or others where they are not there. */
  #pair() {
    const there = this.#choices.map(({ i }) => i);
    return this.#wish.map((i, nth) => (there.includes(i) ? i : there[Math.min(nth, there.length - 1)]));
  }

  /** Show the two, and return what a screen reader says of them. */
  #draw() {
    const choices = this.#choices;
    the("pair").hidden = choices.length < 1;
    if (!choices.length) {
      fill(the("comparison"), h("p", { class: "empty" }, "Type two sentences, one a line."));
      return "";
    }
    const pair = this.#pair();
    ["first", "second"].forEach((id, nth) => {
      const option = (/** @type {{item: Item, i: number}} */ { item, i }) =>
        h("option", { value: i, selected: i === pair[nth] }, `${i + 1}  ${shortened(item.text, NAME)}`);
      fill(the(id), ...choices.map(option));
    });
    const [first, second] = pair.map((i) => side(this.#items[i]));
    const values = cosines(first.vectors, second.vectors);
    const across = values[0]?.map((_, j) => values.map((row) => row[j])) ?? [];
    const best = { down: values.map(top), across: across.map(top) };
    const matches = [...best.down.map(({ value }) => value), ...best.across.map(({ value }) => value)];
    const together = matches.reduce((sum, value) => sum + value, 0) / (matches.length || 1);
    const alike = { sentences: shown(cosine(first.whole, second.whole)), tokens: shown(together) };
    const [i, j] = pair.map((place) => place + 1);
    const cut = [first, second].some(({ left }) => left > 0);
    const caption = `Cosine of the tokens of sentence ${i}, down, with those of sentence ${j}, across`;
    const framed = (/** @type {number} */ row, /** @type {number} */ column) =>
      best.down[row].place === column || best.across[column].place === row;
    fill(
      the("comparison"),
      tiles([
        [
          "The sentences",
          alike.sentences,
          "cosine of their embeddings, the means over all tokens",
        ],
        ["Their tokens", alike.tokens, `mean cosine of the ${whole(matches.length)} best matches, both ways`],
      ]),
      i === j && h("p", { class: "soft" }, "A sentence beside itself: every token finds itself."),
      cut && h("p", { class: "soft" }, `Of a longer sentence the first ${MOST} tokens are compared.`),
      heatmap(caption, first.heads, second.heads, values, { framed }),
      h(
        "div",
        { class: "pair" },
        details(`Best matches of sentence ${i} in ${j}`, matchTable(first.heads, second.heads, best.down)),
        details(`Best matches of sentence ${j} in ${i}`, matchTable(second.heads, first.heads, best.across)),
      ),
      h("p", { class: "soft" }, OWN_TOKENS),
    );
    return `Sentences ${i} and ${j}: cosine ${alike.sentences}, of their tokens ${alike.tokens}.`;
  }
}

/** @param {Item} item */
function side(item) {
  const places = item.tokens.map((_, place) => place).filter((place) => !item.tokens[place].special);
  const shownPlaces = places.slice(0, MOST);
  return {
    whole: mean(item.vectors),
    vectors: shownPlaces.map((place) => item.vectors[place]),
    heads: shownPlaces.map((place) => ({ name: item.tokens[place].text.trim() || "␣" })),
    left: places.length - shownPlaces.length,
  };
}

/** @param {number[]} row */
function top(row) {
  const value = Math.max(...row);
  return { value, place: row.indexOf(value) };
}

/**
 * @param {{name: string}[]} from
 * @param {{name: string}[]} to
 * @param {{value: number, place: number}[]} best
 */
function matchTable(from, to, best) {
  const heads = [{ name: "Token" }, { name: "Best match", text: true }, { name: "Cosine" }];
  return table(
    heads,
    best.map(({ value, place }, i) => [from[i].name, to[place].name, shown(value)]),
  );
}
