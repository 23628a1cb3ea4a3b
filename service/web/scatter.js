/** Vectors in a plane. */

import { percent } from "./figures.js";
import { svg } from "./dom.js";

/** `kind`: type, token, or other for the background. */
/** @typedef {{x: number, y: number, name: string, kind: string, note: string}} Point */

const [WIDTH, HEIGHT, MARGIN] = [420, 340, 34];
const LETTER = 7.5; // pixels, about

/**
 * Draw points, each with its name; both axes have one scale, so that distances are what they look.
 *
 * @param {string} title
 * @param {Point[]} points
 * @param {[number, number]} shares Of the variance, by axis.
 */
export function scatter(title, points, shares) {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const middle = [(Math.min(...xs) + Math.max(...xs)) / 2, (Math.min(...ys) + Math.max(...ys)) / 2];
  const [wide, high] = [Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys)];
  const scale = Math.min((WIDTH - 3 * MARGIN) / (wide || 1e-9), (HEIGHT - 2.6 * MARGIN) / (high || 1e-9), 1e6);
  const x = (/** @type {number} */ value) => WIDTH / 2 + (wide || high ? (value - middle[0]) * scale : 0);
  const y = (/** @type {number} */ value) => HEIGHT / 2 - (wide || high ? (value - middle[1]) * scale : 0);
  const order = { other: 0, token: 1, type: 2 };
  const drawn = points.map((point) => ({ ...point, left: x(point.x), top: y(point.y) }));
  return svg(
    "svg",
    { class: "plane", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    svg("rect", { class: "field", x: 0.5, y: 0.5, width: WIDTH - 1, height: HEIGHT - 1, rx: 8 }),
    svg(
      "text",
      { class: "axis", x: WIDTH / 2, y: HEIGHT - 10, "text-anchor": "middle" },
      `first axis: ${percent(shares[0])} of the variance`,
    ),
    svg(
      "text",
      { class: "axis", x: 18, y: HEIGHT / 2, "text-anchor": "middle", transform: `rotate(-90 18 ${HEIGHT / 2})` },
      `second axis: ${percent(shares[1])}`,
    ),
    ...[...drawn]
      .sort((one, other) => order[one.kind] - order[other.kind])
      .map(({ left, top, kind, note }) => mark(kind, left, top, note)),
    ...placed(drawn.filter(({ kind }) => kind !== "other")).map(({ name, kind, at }) =>
      svg("text", { class: `name ${kind}`, x: at.x, y: at.y, "text-anchor": at.anchor }, name),
    ),
  );
}

/**
 * Find a place for each name beside its point, where no other point or name is; a name without one is left out.
 *
 * @template {{left: number, top: number, name: string}} P
 * @param {P[]} points
 * @returns {(P & {at: {x: number, y: number, anchor: string}})[]}
 */
function placed(points) {
  const boxes = points.map(({ left, top }) => ({ left: left - 7, right: left + 7, top: top - 7, bottom: top + 7 }));
  return points.flatMap((point) => {
    const { left, top, name } = point;
    const width = LETTER * name.length;
    const choices = [
      { x: left + 11, y: top + 4, anchor: "start", from: left + 11 },
      { x: left - 11, y: top + 4, anchor: "end", from: left - 11 - width },
      { x: left, y: top - 11, anchor: "middle", from: left - width / 2 },
      { x: left, y: top + 20, anchor: "middle", from: left - width / 2 },
    ].map((at) => ({ at, box: { left: at.from, right: at.from + width, top: at.y - 10, bottom: at.y + 2 } }));
    const free = choices.find(({ box }) => box.right < WIDTH - 4 && boxes.every((other) => !overlap(box, other)));
    if (!free) return [];
    boxes.push(free.box);
    return [{ ...point, at: free.at }];
  });
}

/** @typedef {{left: number, right: number, top: number, bottom: number}} Box */

/** @param {Box} one @param {Box} other */
function overlap(one, other) {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
}

/** @param {string} kind @param {number} left @param {number} top @param {string} note */
function mark(kind, left, top, note) {
  const title = svg("title", {}, note);
  if (kind !== "type") return svg("circle", { class: kind, cx: left, cy: top, r: kind === "token" ? 6 : 2.5 }, title);
  return svg("path", { class: kind, d: `M${left} ${top - 8}l8 8-8 8-8-8z` }, title);
}
