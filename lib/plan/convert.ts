/**
 * Ring 0. One cell of the source becomes one cell of the replica.
 *
 * Promise: what comes out stands for exactly what went in, at any size; what
 * cannot be stood for is refused, never rounded, cut or guessed.
 *
 * @module
 */

import type { ColumnType } from "../schema.ts";

/** Up to 18 digits fit into 64 bits: nearly every cell is such a number. */
const SMALL = /^(?:0|-?[1-9][0-9]{0,17})$/;
/** A number as integer, numeric, real and double precision write it. */
const PLAIN = /^(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?$/;
/** As real and double precision write it from 1e+06 and 1e+15 upwards. */
const SCIENTIFIC = /^(-?)([1-9])(?:\.([0-9]+))?e\+([0-9]{2,3})$/;
const MAGNITUDE_MAX = "9223372036854775807";
const NEGATIVE_MAGNITUDE_MAX = "9223372036854775808";

/**
 * Converts a cell from the source's text to the text that goes into libSQL.
 *
 * INTEGER takes a number spelled as PostgreSQL's number types spell it: digits,
 * a fraction of zeros, and the exponent of a large double. Other spellings of a
 * number (`007`, `+7`, ` 7`) come from text or bit columns where they are not
 * the same as `7`: taken for it, two keys would become one row.
 *
 * @param cell The cell as PostgreSQL renders it, null for NULL.
 * @param type The column's type in schema.json.
 * @returns INTEGER: canonical digits. BOOLEAN: `1` or `0`. TEXT and JSON: the
 * text as it is, JSON being rendered as such at the source. NULL stays null.
 * @throws {RangeError} The column cannot hold the cell. The message says what
 * was expected, and the kind and length of what was found, never the value.
 *
 * @example
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(convert("9223372036854775807", "INTEGER"), "9223372036854775807");
 * assertEquals(convert("5.00", "INTEGER"), "5");
 * assertEquals(convert("t", "BOOLEAN"), "1");
 * assertEquals(convert("1.10", "TEXT"), "1.10");
 * assertEquals(convert(null, "JSON"), null);
 * assertThrows(() => convert("5.01", "INTEGER"), RangeError, "found a fraction of 4 characters");
 * ```
 */
export function convert(cell: string | null, type: ColumnType): string | null {
  if (cell === null) return null;
  switch (type) {
    case "INTEGER":
      return SMALL.test(cell) ? cell : convertInteger(cell);
    case "BOOLEAN":
      return convertBoolean(cell);
    case "TEXT":
    case "JSON":
      return cell;
  }
}

function convertBoolean(cell: string): "1" | "0" {
  switch (cell) {
    case "true":
    case "t":
    case "1":
      return "1";
    case "false":
    case "f":
    case "0":
      return "0";
  }
  throw new RangeError(`expected true or false: found ${sizeOf("text", cell)}`);
}

function convertInteger(cell: string): string {
  const refuse = (kind: string) =>
    new RangeError(
      `expected an exact integer of 64 bits: found ${sizeOf(kind, cell)}`,
    );
  const plain = PLAIN.exec(cell);
  const parts = plain ?? SCIENTIFIC.exec(cell);
  if (parts === null) throw refuse("text");
  const [, sign = "", whole = "", fraction = "", exponent = "0"] = parts;
  // Moving the point by 19 places or more is beyond 64 bits, as the first digit is not 0.
  const places = Number(exponent);
  if (places >= MAGNITUDE_MAX.length) throw refuse("a number beyond 64 bits");
  if (/[1-9]/.test(fraction.slice(places))) throw refuse("a fraction");
  const digits = whole + fraction.slice(0, places).padEnd(places, "0");
  if (digits === "0") return "0";
  const most = sign === "-" ? NEGATIVE_MAGNITUDE_MAX : MAGNITUDE_MAX;
  // Digit strings of one length compare as their numbers do.
  if (
    digits.length > most.length ||
    (digits.length === most.length && digits > most)
  ) {
    throw refuse("a number beyond 64 bits");
  }
  return sign + digits;
}

/** Names what was found by its length, in characters as PostgreSQL counts them. */
function sizeOf(kind: string, cell: string): string {
  if (cell === "") return "empty text";
  let characters = 0;
  for (const _ of cell) characters++;
  return `${kind} of ${characters} character${characters === 1 ? "" : "s"}`;
}
