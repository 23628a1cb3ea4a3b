/** Tabs as the ARIA Authoring Practices have them: arrows move and choose, one tab is in the tab order. */

import { the } from "./dom.js";

/**
 * Make the tabs of the page work.
 *
 * @param {(panel: string) => void} chosen Is told the id of the panel that is shown.
 * @returns {{choose: (panel: string) => void, current: () => string}}
 */
export function tabs(chosen) {
  const all = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[role=tab]")]);
  const panelOf = (/** @type {HTMLElement} */ tab) => /** @type {string} */ (tab.getAttribute("aria-controls"));
  let current = panelOf(all[0]);

  /** @param {string} panel */
  function choose(panel) {
    current = panel;
    for (const tab of all) {
      const selected = panelOf(tab) === panel;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      the(panelOf(tab)).hidden = !selected;
    }
    // The name of the view may stand in the address; what was typed never does.
    history.replaceState(null, "", panel === panelOf(all[0]) ? location.pathname : `#${panel}`);
    chosen(panel);
  }

  all.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(panelOf(tab)));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = all[(to + all.length) % all.length];
      next.focus();
      choose(panelOf(next));
    });
  });
  const wanted = location.hash.slice(1);
  if (all.some((tab) => panelOf(tab) === wanted)) choose(wanted);
  return { choose, current: () => current };
}
