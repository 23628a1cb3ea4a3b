/** A card for each sentence: its label, every score, its tokens, and what each of them contributed. */

import { patiently } from "./api.js";
import { breakable, fill, h, refill, the } from "./dom.js";
import { count, percent, signed, whole } from "./figures.js";
import { notice, sentence, words as inWords } from "./notice.js";
import { scroller, table } from "./parts.js";
import { codePoints, shortened } from "./text.js";

/** @typedef {import("./reading.js").Item} Item */

const SHOWN = 5; // labels, until all are asked for
const FAINT = 0.02; // a change of probability below which no token is coloured in full

const SHOWN_AS_ZERO = 0.0005;
const SPACE = "␣"; // shown for a token that is the space before a word, or a part of it

export class Labels {
  #service;
  #pick;
  #outdated;
  /** @type {Card[]} */
  #cards = [];
  #asking = new AbortController();
  #visible = true;

  /**
   * @param {import("./api.js").Service} service
   * @param {(word: string) => void} pick Is told the word of a token that was chosen.
   * @param {() => void} outdated Is called where another model answers than the one that read the sentences.
   */
  constructor(service, pick, outdated) {
    this.#service = service;
    this.#pick = pick;
    this.#outdated = outdated;
    the("under").addEventListener("change", () => this.#cards.forEach((card) => card.writeUnder()));
  }

  /** @param {Item[]} items @param {any} info */
  show(items, info) {
    const old = this.#cards;
    this.#cards = items.map((item, place) => {
      const same = old[place]?.item === item;
      return same ? old[place] : new Card(item, place, info, this.#pick, (card) => this.#explain([card]));
    });
    const container = the("cards");
    if (!items.length) fill(container, h("p", { class: "empty" }, "Type a sentence, or choose an example."));
    else if (old.length !== items.length || this.#cards.some((card, place) => card !== old[place])) {
      // Cards that stay are not touched: what is open in them stays open.
      this.#cards.forEach((card, place) => {
        if (container.children[place] !== card.element) container.insertBefore(card.element, container.children[place]);
      });
      while (container.children.length > items.length) container.lastElementChild?.remove();
    }
    this.#asking.abort();
    this.#asking = new AbortController();
    for (const card of this.#cards) card.giveUp();
    if (this.#visible) this.#explain(this.#cards);
  }

  /** @param {boolean} visible Nothing is explained that nobody sees. */
  setVisible(visible) {
    this.#visible = visible;
    if (visible) this.#explain(this.#cards);
  }

  /** One sentence after another: each costs as many passes as it has tokens. @param {Card[]} cards */
  async #explain(cards) {
    const { signal } = this.#asking;
    for (const card of cards) {
      if (card.item.error || card.asked === card.wanted || signal.aborted) continue;
      const wanted = card.wanted;
      card.asked = wanted;
      try {
        const { item } = card;
        if (!item.explained.has(wanted)) {
          const ask = () => this.#service.explain(item.text, wanted, signal);
          const waiting = () => card.fail("The service is busy; importance follows.");
          const { results, model } = await patiently(ask, signal, waiting);
          if (model && model.version !== item.version) {
            this.#outdated();
            return;
          }
          item.explained.set(wanted, results[0]);
        }
        if (card.wanted === wanted) card.explain(item.explained.get(wanted));
      } catch (error) {
        if (signal.aborted) return;
        if (card.asked !== wanted) continue; // another label was chosen meanwhile
        card.asked = undefined;
        const again = () => {
          this.#service.mayAskAgain();
          this.#explain([card]);
        };
        card.fail(inWords(error), again);
      }
    }
  }
}

/** One sentence. */
class Card {
  /** @type {string | null} */
  wanted = null; // the label to explain; null: the best one
  /** @type {string | null | undefined} */
  asked = undefined;
  #info;
  #pick;
  #explanation = /** @type {any} */ (null);
  #chips = /** @type {Map<number, {chip: HTMLElement, figure: HTMLElement}>} */ (new Map());
  #scores = h("div");
  #notice = h("div");
  #select = /** @type {any} */ (null);
  #table = h("div");
  #about = h("p", { class: "soft about" });
  #all = false;
  #place;

  /**
   * @param {Item} item
   * @param {number} place
   * @param {any} info
   * @param {(word: string) => void} pick
   * @param {(card: Card) => void} explain
   */
  constructor(item, place, info, pick, explain) {
    this.item = item;
    this.#place = place;
    this.#info = info;
    this.#pick = pick;
    const id = `sentence-${place + 1}`;
    if (item.error) {
      this.element = h(
        "article",
        { class: "card", "aria-labelledby": id },
        h("h3", { id }, h("span", { class: "place" }, place + 1), h("span", { class: "verdict" }, " no answer")),
        h("p", { dir: "auto" }, shortened(item.text, 200)),
        notice(sentence(item.error.message)),
      );
      return;
    }
    const details = h("details", {}, h("summary", {}, "Tokens as a table"), this.#table);
    details.addEventListener("toggle", () => this.#writeTable(details.open));
    this.element = h(
      "article",
      { class: "card", "aria-labelledby": id },
      h("h3", { id }, h("span", { class: "place" }, place + 1), " ", h("span", { class: "verdict" }, ...this.#title())),
      h(
        "div",
        { class: "columns" },
        h("div", {}, this.#tokens(place), this.#about, this.#notice, details),
        this.#aside(explain),
      ),
    );
    this.writeUnder();
    this.#writeScores();
  }

  #title() {
    const { label, given } = this.item;
    if (label === null) {
      return [
        h("span", { class: "label none" }, "no label"),
        h("span", { class: "soft" }, " none reaches its threshold"),
      ];
    }
    const told = this.#info.problem_type === "multi_label" ? given : given.slice(0, 1);
    return told.flatMap(({ label, score }) => [
      h("span", { class: "label" }, ...breakable(label)),
      h("span", { class: "score" }, percent(score)),
    ]);
  }

  /** The tokens of the sentence, one stop in the tab order: arrows walk. @param {number} place */
  #tokens(place) {
    const { item } = this;
    const points = codePoints(item.text);
    const wordOf = new Map(item.words.flatMap((word) => word.places.map((at) => [at, word])));
    const name = `Tokens of sentence ${place + 1}`;
    const list = h("div", { class: "tokens", role: "toolbar", "aria-label": name, dir: "auto" });
    const stops = /** @type {HTMLElement[]} */ ([]);
    let end = 0;
    let pieces = list; // where the pieces of the present word go
    item.tokens.forEach((token, at) => {
      // Neither figures nor the model's own tokens are of the sentence, whose letters say which way it runs.
      const figure = h("small", { dir: "ltr" });
      if (token.special) {
        list.append(h("span", { class: "token special", dir: "ltr" }, token.text, figure));
        return;
      }
      const word = wordOf.get(at);
      const shown = h("span", {}, token.text.trim() || SPACE);
      const look = word && {
        type: "button",
        tabindex: stops.length ? "-1" : "0",
        onclick: () => this.#pick(word.text),
      };
      const chip = h(look ? "button" : "span", { class: "token", ...look }, shown, figure);
      if (!word || word.places[0] === at) {
        pieces = h("span", { class: "word" });
        list.append(pieces);
      }
      pieces.append(chip);
      if (look) stops.push(chip);
      end = Math.max(end, token.end);
      this.#chips.set(at, { chip, figure });
    });
    if (item.truncated)
      list.append(
        h("span", { class: "unread", dir: "ltr" }, ` ${count(points.length - end, "more character")} not read`),
      );
    list.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => walk(event, stops));
    return list;
  }

  /** @param {(card: Card) => void} explain */
  #aside(explain) {
    const { item } = this;
    const id = `explained-${this.#place + 1}`;
    this.#select = h(
      "select",
      {
        id,
        onchange: () => {
          this.wanted = this.#select.value === "" ? null : JSON.parse(this.#select.value);
          this.#explanation = null;
          this.#write();
          explain(this);
        },
      },
      h("option", { value: "" }, `the best: ${item.scores[0]?.label ?? "?"}`),
      ...item.scores.slice(1).map(({ label }) => h("option", { value: JSON.stringify(label) }, label)),
    );
    return h(
      "div",
      { class: "aside" },
      this.#scores,
      h("label", { class: "explained", for: id }, "Importance for"),
      this.#select,
    );
  }

  #writeScores() {
    const { scores, given } = this.item;
    const thresholds = this.#info.thresholds;
    const shown = this.#all ? scores : scores.slice(0, SHOWN);
    const names = new Set(given.map(({ label }) => label));
    const withheld = scores.length > given.length;
    const rows = shown.map(({ label, score }) => {
      const threshold = thresholds?.[this.#info.labels.indexOf(label)];
      const reached = names.has(label) ? "reaches" : "below";
      return h(
        "li",
        { class: names.has(label) && (withheld || label === this.item.label) ? "given" : null },
        h("span", { class: "name" }, ...breakable(label)),
        h("span", { class: "figure" }, percent(score)),
        h(
          "span",
          { class: "bar", "aria-hidden": "true" },
          h("i", { style: { width: `${100 * score}%` } }),
          threshold !== undefined && h("b", { style: { left: `${100 * threshold}%` } }),
        ),
        threshold !== undefined &&
          h("span", { class: "soft threshold" }, `${reached} its threshold, ${percent(threshold)}`),
      );
    });
    const rest = scores.length - SHOWN;
    const toggle =
      rest > 0 &&
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          "aria-expanded": String(this.#all),
          onclick: () => {
            this.#all = !this.#all;
            this.#writeScores();
            this.#scores.querySelector("button")?.focus();
          },
        },
        this.#all ? "Show fewer" : `Show all ${whole(scores.length)}`,
      );
    fill(this.#scores, h("ol", { class: "scores" }, ...rows), toggle);
  }

  /** @param {any} explanation */
  explain(explanation) {
    if (explanation.status !== "ok") {
      this.fail(sentence(explanation.error.message));
      return;
    }
    this.#explanation = explanation;
    refill(this.#notice, this.#select);
    this.#write();
  }

  /** What was being asked will not come; it may be asked again. */
  giveUp() {
    if (!this.#explanation) this.asked = undefined;
  }

  /** @param {string} words @param {(() => void) | null} [again] */
  fail(words, again = null) {
    refill(this.#notice, this.#select, notice(words, again));
  }

  #write() {
    const found = this.#explanation;
    const sizes = (found?.tokens ?? []).map((/** @type {any} */ { importance }) => Math.abs(importance ?? 0));
    const most = Math.max(FAINT, ...sizes);
    for (const [at, { chip }] of this.#chips) {
      const importance = found?.tokens[at]?.importance ?? 0;
      chip.style.setProperty("--share", (Math.abs(importance) / most).toFixed(3));
      chip.classList.toggle("against", importance < -SHOWN_AS_ZERO);
    }
    this.#about.textContent = found ? summary(found) : "";
    this.writeUnder();
    this.#writeTable(this.#table.parentElement?.open);
  }

  writeUnder() {
    const what = /** @type {any} */ (document.querySelector("input[name=under]:checked")).value;
    for (const [at, { figure }] of this.#chips) {
      const { start, end, id } = this.item.tokens[at];
      const importance = this.#explanation?.tokens[at]?.importance;
      if (what === "offsets") figure.textContent = `${start}–${end}`;
      else if (what === "id") figure.textContent = String(id);
      else figure.textContent = typeof importance === "number" ? signed(importance) : "·";
    }
  }

  /** @param {boolean | undefined} open */
  #writeTable(open) {
    if (!open) return;
    const found = this.#explanation;
    const heads = ["Token", "Id", "Characters", "Importance", "Log-odds"].map((name) => ({ name }));
    const rows = this.item.tokens.map((token, at) => [
      token.text.trim() || SPACE,
      String(token.id),
      token.special ? "–" : `${token.start} to ${token.end}`,
      figure(found?.tokens[at]?.importance, 4),
      figure(found?.tokens[at]?.weight_of_evidence, 3),
    ]);
    const label = found ? `Importance is for ${found.label}.` : "Importance has not come yet.";
    const caption = `${label} Log-odds: the change of ln(p / (1 − p)). Special tokens are never left out.`;
    fill(this.#table, scroller(`Tokens of sentence ${this.#place + 1} as a table`, table(heads, rows, { caption })));
  }
}

/** What the figures say, in words. @param {{label: string, score: number, tokens: any[]}} found */
function summary({ label, score, tokens }) {
  const real = tokens.filter(({ importance }) => typeof importance === "number");
  if (!real.length) return "";
  const [first, ...rest] = real.sort((one, other) => other.importance - one.importance);
  const last = rest.at(-1) ?? first;
  const without = (/** @type {any} */ { importance }) => percent(Math.min(1, Math.max(0, score - importance)));
  const speaks =
    first.importance > SHOWN_AS_ZERO
      ? `“${first.text}” speaks for it most: without it, ${without(first)}.`
      : "No single token speaks for it: without any one of them it is no less probable.";
  const against =
    last.importance < -SHOWN_AS_ZERO ? `“${last.text}” speaks against it most: without it, ${without(last)}.` : "";
  return `${label} has ${percent(score)}. ${speaks} ${against}`;
}

/** @param {number | null | undefined} value @param {number} digits */
const figure = (value, digits) => (typeof value === "number" ? signed(value, digits) : "–");

/**
 * Move the focus as a key says: arrows go where they point, whichever way the sentence runs.
 *
 * @param {KeyboardEvent} event
 * @param {HTMLElement[]} buttons
 */
function walk(event, buttons) {
  const at = buttons.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  if (at < 0) return;
  const right = getComputedStyle(buttons[at]).direction === "rtl" ? -1 : 1;
  const to = { ArrowRight: at + right, ArrowLeft: at - right, Home: 0, End: buttons.length - 1 }[event.key];
  if (to === undefined || !buttons[to]) return;
  event.preventDefault();
  buttons[at].tabIndex = -1;
  buttons[to].tabIndex = 0;
  buttons[to].focus();
}
