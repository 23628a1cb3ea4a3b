/** Vectors: read from the service's bytes, compared, and laid out in a plane. */

/** @typedef {Float32Array | Float64Array} Vector */

/**
 * Return the rows of an array that the service sent as base64.
 *
 * @param {{data: string, shape: number[], dtype: string}} array Little-endian float32, row by row.
 * @returns {Float32Array[]}
 */
export function rows({ data, shape: [count, size], dtype }) {
  if (dtype !== "float32") throw new TypeError(`expected float32, found ${dtype}`);
  const letters = atob(data);
  const bytes = new Uint8Array(letters.length);
  // Plain loops: iterators take ten times as long, a fifth of a second for a long sentence.
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: count }, (_, row) => {
    const vector = new Float32Array(size);
    for (let i = 0; i < size; i++) vector[i] = view.getFloat32(4 * (row * size + i), true);
    return vector;
  });
}

/** @param {Vector} one @param {Vector} other */
export function dot(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += one[i] * other[i];
  return sum;
}

/**
 * Return the cosine of the angle between two vectors; 0 where one has no direction.
 *
 * @param {Vector} one
 * @param {Vector} other
 */
export function cosine(one, other) {
  const lengths = Math.sqrt(dot(one, one) * dot(other, other));
  return lengths ? Math.max(-1, Math.min(1, dot(one, other) / lengths)) : 0;
}

/**
 * Return the cosine of every vector with every other: one row for each of `down`.
 *
 * @param {Vector[]} down
 * @param {Vector[]} [across]
 */
export function cosines(down, across = down) {
  return down.map((one) => across.map((other) => cosine(one, other)));
}

/** Return the mean of at least one vector. @param {Vector[]} vectors */
export function mean(vectors) {
  const sum = new Float64Array(vectors[0].length);
  for (const vector of vectors) for (let i = 0; i < sum.length; i++) sum[i] += vector[i];
  return sum.map((value) => value / vectors.length);
}

/** Return a vector of length 1 in the same direction. @param {Vector} vector */
export function unit(vector) {
  const length = Math.sqrt(dot(vector, vector)) || 1;
  return Float64Array.from(vector, (value) => value / length);
}

/**
 * Return the least, the mean and the greatest of the cosines between different vectors; null for fewer than two.
 *
 * @param {number[][]} matrix Of the vectors with themselves.
 */
export function spread(matrix) {
  const pairs = matrix.flatMap((row, i) => row.slice(i + 1).map((value, j) => ({ value, pair: [i, i + 1 + j] })));
  if (!pairs.length) return null;
  const least = pairs.reduce((one, other) => (other.value < one.value ? other : one));
  const most = pairs.reduce((one, other) => (other.value > one.value ? other : one));
  return { least, most, mean: pairs.reduce((sum, { value }) => sum + value, 0) / pairs.length };
}

/**
 * Lay vectors out in a plane: their first two principal components.
 *
 * The components are those of the Gram matrix of the centred vectors, which is small where the vectors are few, found
 * by power iteration. Which side is the positive one is arbitrary: here it is that of the farthest vector.
 *
 * @param {Vector[]} vectors
 * @returns {{points: [number, number][], shares: [number, number]}} `shares`: of the variance, by axis.
 */
export function plane(vectors) {
  const middle = mean(vectors);
  const centred = vectors.map((vector) => Float64Array.from(vector, (value, i) => value - middle[i]));
  const gram = centred.map((one) => Float64Array.from(centred, (other) => dot(one, other)));
  const total = gram.reduce((sum, row, i) => sum + row[i], 0);
  const axes = [component(gram, total), component(gram, total)];
  return {
    points: vectors.map((_, i) => [axes[0].scores[i], axes[1].scores[i]]),
    shares: [axes[0].share, axes[1].share],
  };
}

/** Take the strongest component out of a Gram matrix. @param {Float64Array[]} gram @param {number} total */
function component(gram, total) {
  const longest = gram.reduce((best, row, i) => (row[i] > gram[best][best] ? i : best), 0);
  if (!(gram[longest][longest] > 1e-12 * total)) return { scores: new Float64Array(gram.length), share: 0 };
  let axis = unit(gram[longest]);
  for (let round = 0; round < 1000; round++) {
    const next = unit(Float64Array.from(gram, (row) => dot(row, axis)));
    const moved = 1 - dot(next, axis);
    axis = next;
    if (moved < 1e-14) break;
  }
  const value = dot(
    axis,
    Float64Array.from(gram, (row) => dot(row, axis)),
  );
  gram.forEach((row, i) => row.forEach((_, j) => (row[j] -= value * axis[i] * axis[j])));
  const farthest = axis.reduce((best, score) => (Math.abs(score) > Math.abs(best) ? score : best), 0);
  const scale = Math.sign(farthest) * Math.sqrt(value);
  return { scores: axis.map((score) => score * scale), share: value / total };
}
