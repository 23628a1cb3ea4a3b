/** CSV as RFC 4180 has it, and as it is found: read without losing anything, written without changing anything. */

/** @typedef {{fields: string[], line: number, flaw: string | null}} Row `line`: where it begins, from 1 */
/** @typedef {{rows: Row[], delimiter: string, newline: string, bom: boolean, blank: number}} Table */

const DELIMITERS = [",", ";", "\t"];

/**
 * Decode the bytes of a file.
 *
 * @param {ArrayBuffer} bytes
 * @throws {Error} They are not UTF-8.
 */
export function decode(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error("the file is not in UTF-8; save it again as “CSV UTF-8”");
  }
}

/**
 * Read a table. Every row is kept, also one that breaks the rules: its `flaw` says how.
 *
 * @param {string} text
 * @returns {Table}
 */
export function parse(text) {
  const bom = text.startsWith("\ufeff");
  const delimiter = delimiterOf(text);
  /** @type {Row[]} */
  const rows = [];
  let [at, line, blank] = [bom ? 1 : 0, 1, 0];
  let newline = "";
  while (at < text.length) {
    /** @type {Row} */
    const row = { fields: [], line, flaw: null };
    const begin = at;
    for (;;) {
      let field = "";
      const quoted = text[at] === '"';
      if (quoted) {
        at++;
        for (;;) {
          const close = text.indexOf('"', at);
          const part = text.slice(at, close < 0 ? text.length : close);
          field += part;
          line += part.split(/\r\n|\r|\n/).length - 1;
          at += part.length + 1;
          if (close < 0) {
            row.flaw = "quote_open: its last quote is never closed";
            break;
          }
          if (text[at] !== '"') break;
          field += '"';
          at++;
        }
      }
      const rest = at;
      while (at < text.length && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") at++;
      if (quoted && at > rest)
        row.flaw ??= "quote_misplaced: something stands between a closing quote and the next field";
      field += text.slice(rest, at);
      row.fields.push(field);
      if (text[at] !== delimiter) break;
      at++;
    }
    const length = at - begin;
    const ending = text.startsWith("\r\n", at) ? "\r\n" : (text[at] ?? "");
    at += ending.length || 1;
    newline ||= ending;
    line++;
    if (length) rows.push(row);
    else blank++;
  }
  return { rows, delimiter, newline: newline || "\r\n", bom, blank };
}

/** What separates the fields of the first line. @param {string} text */
function delimiterOf(text) {
  const first = text.replace(/"[^"]*(?:"|$)/g, "").split(/[\r\n]/, 1)[0];
  const counts = DELIMITERS.map((delimiter) => first.split(delimiter).length);
  return DELIMITERS[counts.indexOf(Math.max(...counts))];
}

/**
 * Write a table. Fields are quoted where they must be and otherwise stand as they are: a text that looks like a
 * formula is the user's text all the same.
 *
 * @param {string[][]} rows
 * @param {{delimiter: string, newline: string, bom: boolean}} style
 */
export function format(rows, { delimiter, newline, bom }) {
  const special = new RegExp(`["\r\n${delimiter}]`);
  const written = (/** @type {string} */ field) => (special.test(field) ? `"${field.replaceAll('"', '""')}"` : field);
  return (bom ? "\ufeff" : "") + rows.map((row) => row.map(written).join(delimiter) + newline).join("");
}
