/** Numbers as people read them. */

const WHOLE = new Intl.NumberFormat("en");

/** @param {number} value */
export const whole = (value) => WHOLE.format(value);

/** @param {number} value @param {string} one @param {string} [many] */
export const count = (value, one, many = `${one}s`) => `${whole(value)} ${value === 1 ? one : many}`;

/**
 * A probability: never a certainty that it is not.
 *
 * @param {number} value
 */
export function percent(value) {
  const shown = (100 * value).toFixed(1);
  if (shown === "100.0" && value < 1) return ">\u00a099.9\u00a0%";
  if (shown === "0.0" && value > 0) return "<\u00a00.1\u00a0%";
  return `${shown}\u00a0%`;
}

/** A cosine, with a real minus. @param {number} value */
export const cosine = (value) => signless(value.toFixed(3));

/** A cosine where there is little room. @param {number} value */
export const cosineShort = (value) => signless(value.toFixed(2));

/** A difference: always with its sign. @param {number} value @param {number} [digits] */
export function signed(value, digits = 3) {
  const shown = signless(value.toFixed(digits));
  return value > 0 && !/^0\.?0*$/.test(shown) ? `+${shown}` : shown;
}

/** @param {string} shown */
function signless(shown) {
  return /^-0\.?0*$/.test(shown) ? shown.slice(1) : shown.replace("-", "\u2212");
}

/** @param {string[]} words */
export function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
