/** Elements: made, filled and announced. Text is always text: nothing that was typed or answered becomes markup. */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | number | null | false | undefined} Child */

/**
 * Make an HTML element.
 *
 * @param {string} tag
 * @param {Record<string, any>} [properties] `class`, `style` (an object, set through the CSSOM, as the page's policy
 *   asks), `on...` listeners; everything else is an attribute, and false or null leaves it out.
 * @param {...Child} children
 * @returns {any}
 */
export function h(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/**
 * Make an SVG element.
 *
 * @param {string} tag
 * @param {Record<string, any>} [properties] As of `h`.
 * @param {...Child} children
 * @returns {any}
 */
export function svg(tag, properties = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), properties, children);
}

/** @param {any} element @param {Record<string, any>} properties @param {Child[]} children */
function furnish(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "class") element.setAttribute("class", value);
    else if (name === "style") for (const [key, of] of Object.entries(value)) element.style.setProperty(key, of);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== false && child !== undefined));
  return element;
}

/**
 * Put children in the place of those an element has.
 *
 * @param {Element} element
 * @param {...Child} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== false && child !== undefined));
}

/**
 * Put children in the place of those an element has, as `fill` does. Where the focus was on one of those it goes to the
 * first button that is there now, or where there is none to another element: without one it would leave the place.
 *
 * @param {Element} element
 * @param {HTMLElement} otherwise Takes the focus where no button does.
 * @param {...Child} children
 */
export function refill(element, otherwise, ...children) {
  const held = element.contains(document.activeElement);
  fill(element, ...children);
  if (held) (element.querySelector("button") ?? otherwise).focus();
}

/**
 * Return an element of the page by its id.
 *
 * @param {string} id
 * @returns {any}
 */
export function the(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element with the id ${id}`);
  return found;
}

/**
 * Return a name that may be broken where it is joined, so that it fits narrow places.
 *
 * @param {string} name
 * @returns {Child[]}
 */
export function breakable(name) {
  return name.split(/(?<=[_/.:-])/u).flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));
}

/**
 * Say something to screen readers, once the voice is free; what was said last is not said again.
 *
 * @param {string} words
 */
export function announce(words) {
  const told = the("told");
  if (told.textContent !== words) told.textContent = words;
}
