/**
 * Ring 0. The messages of the PostgreSQL protocol, as far as a simple query
 * needs them.
 *
 * Promise: bytes may come in any pieces; each message is returned
 * once and whole, and none larger than allowed is waited for.
 *
 * @module
 */

/** Bytes that need no copy. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** A message of the server: its type's letter, and what follows the length. */
export interface Message {
  /** Its one-letter type. */
  readonly type: string;
  /** What follows the length. */
  readonly body: Bytes;
}

/** Asks for TLS; the server answers one byte, S or N. */
export const SSL_REQUEST: Bytes = message("", 8, word(80877103));

/** Ends a session. */
export const TERMINATE: Bytes = message("X", 4);

/**
 * Makes the first message of a session.
 *
 * @param settings User, database and settings of the session.
 * @returns The message.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(startupMessage({ user: "u" }).length, 4 + 4 + 5 + 2 + 1);
 * ```
 */
export function startupMessage(
  settings: Readonly<Record<string, string>>,
): Bytes {
  const pairs = Object.entries(settings).flat().map((text) => `${text}\0`);
  const body = encode(`${pairs.join("")}\0`);
  return message("", body.length + 8, word(196608), body);
}

/**
 * Makes a message of one text.
 *
 * @param type Its letter: Q for a query, p for a password.
 * @param text The text, without U+0000.
 * @returns The message.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(textMessage("Q", "ab"), new Uint8Array([81, 0, 0, 0, 7, 97, 98, 0]));
 * ```
 */
export function textMessage(type: string, text: string): Bytes {
  const body = encode(`${text}\0`);
  return message(type, body.length + 4, body);
}

/**
 * Makes the messages of SCRAM: the first names the mechanism.
 *
 * @param text What SCRAM says.
 * @param mechanism Its name, in the first one.
 * @returns The message.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(scramMessage("ab").length, 1 + 4 + 2);
 * assertEquals(scramMessage("ab", "S").length, 1 + 4 + 2 + 4 + 2);
 * ```
 */
export function scramMessage(text: string, mechanism?: string): Bytes {
  const body = encode(text);
  if (mechanism === undefined) return message("p", body.length + 4, body);
  const name = encode(`${mechanism}\0`);
  const length = name.length + 4 + body.length + 4;
  return message("p", length, name, word(body.length), body);
}

/**
 * Makes a reader of what the server sends.
 *
 * @param bytesMax How large a message may be.
 * @returns Takes bytes as they come, and returns the messages they complete.
 * Throws a RangeError at a message that is too large, or none.
 *
 * @example
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const read = createReader(100);
 * assertEquals(read(new Uint8Array([90, 0, 0])), []);
 * assertEquals(read(new Uint8Array([0, 5, 73])), [{ type: "Z", body: new Uint8Array([73]) }]);
 * assertThrows(() => read(new Uint8Array([90, 9, 9, 9, 9])), RangeError);
 * ```
 */
export function createReader(bytesMax: number): (bytes: Bytes) => Message[] {
  let pieces: Bytes[] = [];
  let have = 0;
  let need = 5;
  return (bytes) => {
    pieces.push(bytes);
    have += bytes.length;
    const messages: Message[] = [];
    if (have < need) return messages;
    // Put together only once all of a message is there: a large one comes in
    // many pieces.
    let rest = join(pieces);
    for (;;) {
      need = 5;
      if (rest.length < need) break;
      const length = viewOf(rest).getUint32(1);
      if (length < 4 || length > bytesMax) {
        throw new RangeError(`a message of ${length} bytes`);
      }
      need = length + 1;
      if (rest.length < need) break;
      const type = String.fromCharCode(rest[0]!);
      messages.push({ type, body: rest.subarray(5, need) });
      rest = rest.subarray(need);
    }
    pieces = [rest];
    have = rest.length;
    return messages;
  };
}

/**
 * Reads a text that came in rows, a piece of it in the first column of each.
 *
 * @param rows The bodies of the DataRows.
 * @returns The text; NULL, and a row without a column, add nothing to it.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const rows = [[0, 1, 0, 0, 0, 1, 97], [0, 1, 255, 255, 255, 255], [0, 1, 0, 0, 0, 1, 98]];
 * assertEquals(textIn(rows.map((row) => new Uint8Array(row))), "ab");
 * ```
 */
export function textIn(rows: readonly Bytes[]): string {
  const pieces = rows.map((row) => {
    const length = row.length < 6 ? 0 : viewOf(row).getInt32(2);
    return row.subarray(6, 6 + Math.max(length, 0));
  });
  // Decoded as one: a text of many would have to be put together again.
  return new TextDecoder().decode(join(pieces));
}

/**
 * Reads the fields of an error.
 *
 * @param body The body of an ErrorResponse.
 * @returns The fields by their letter: C is the SQLSTATE, M the message.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const body = new TextEncoder().encode("C57014\0Mcanceled\0\0");
 * assertEquals(errorFields(body), { C: "57014", M: "canceled" });
 * ```
 */
export function errorFields(body: Bytes): Record<string, string> {
  const fields = new TextDecoder().decode(body).split("\0");
  return Object.fromEntries(
    fields.filter((field) => field !== "").map((
      field,
    ) => [field[0], field.slice(1)]),
  );
}

/**
 * Reads the code of an Authentication message.
 *
 * @param body Its body.
 * @returns The code, 0 where the server is satisfied, and what follows it.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(authentication(new Uint8Array([0, 0, 0, 12, 114])).code, 12);
 * ```
 */
export function authentication(body: Bytes): { code: number; rest: Bytes } {
  return {
    code: body.length < 4 ? -1 : viewOf(body).getUint32(0),
    rest: body.subarray(4),
  };
}

function message(type: string, length: number, ...parts: Bytes[]): Bytes {
  return join([encode(type), word(length), ...parts]);
}

function join(parts: readonly Bytes[]): Bytes {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(
    parts.reduce((sum, part) => sum + part.length, 0),
  );
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function word(value: number): Bytes {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

function viewOf(bytes: Bytes): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function encode(text: string): Bytes {
  return new TextEncoder().encode(text);
}
