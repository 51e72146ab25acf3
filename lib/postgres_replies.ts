/**
 * Ring 0. Looks at what a PostgreSQL server says before the driver reads it.
 *
 * Promise: what passes cannot keep the driver from answering: it neither loops
 * nor throws where nobody catches, and an answer has a bound.
 *
 * @module
 */

/**
 * What a server says to one simple query: parameters, notices, columns, rows,
 * its end. Of these only R and T make postgres.js do more than read: a bad
 * challenge throws outside of any query or counts for hours, columns without
 * an end are looked for without end.
 */
const EXPECTED = "RSKZTDCEINA";
const LOOKED_INTO = "RT";
/** A challenge and one column are some 100 bytes. */
const LOOKED_INTO_BYTES_MAX = 16_384;
/** PostgreSQL's own is 4,096; a million takes half a second. */
const SCRAM_ROUNDS_MAX = 1_000_000;
const HEAD_BYTES = 5;

/**
 * Makes the check of one connection, after TLS if there is any.
 *
 * @param bytesMax Bytes that an answer may have, from one query's end to the
 * next.
 * @returns A function to be shown all bytes in their order.
 * @throws {RangeError} The function, where they are not what a driver can take;
 * the message holds nothing of them.
 *
 * @example
 * ```ts
 * import { assertThrows } from "@std/assert";
 *
 * const check = createReplyCheck(1_000);
 * check(new Uint8Array([90, 0, 0, 0, 5, 73]));
 * assertThrows(() => check(new Uint8Array([71, 0, 0, 0, 4])), RangeError, "G");
 * ```
 */
export function createReplyCheck(
  bytesMax: number,
): (bytes: Uint8Array) => void {
  const head = new Uint8Array(HEAD_BYTES);
  let headBytes = 0;
  let type = "";
  let bodyBytes = 0;
  let bytesLeft = 0;
  let answerBytes = 0;
  let body: number[] | null = null;

  const begin = () => {
    type = String.fromCharCode(head[0]!);
    bodyBytes = new DataView(head.buffer).getUint32(1) - 4;
    bytesLeft = bodyBytes;
    if (!EXPECTED.includes(type)) {
      throw new RangeError(`expected an answer to a query: found ${kind()}`);
    }
    answerBytes = type === "Z" ? 0 : answerBytes + HEAD_BYTES + bodyBytes;
    if (bodyBytes < 0 || answerBytes > bytesMax) {
      throw new RangeError(
        `expected an answer of at most ${bytesMax} bytes: found more, or less than nothing`,
      );
    }
    if (!LOOKED_INTO.includes(type)) return;
    if (bodyBytes > LOOKED_INTO_BYTES_MAX) {
      throw new RangeError(`expected a small message: found a large ${kind()}`);
    }
    body = [];
  };
  const end = () => {
    if (body !== null) {
      const isFit = type === "R" ? isChallenge(body) : isColumns(body);
      if (!isFit) {
        throw new RangeError(`expected a whole ${kind()}: found none`);
      }
      body = null;
    }
    headBytes = 0;
  };
  const kind = () =>
    /[A-Za-z]/.test(type) ? `message ${type}` : "no such message";

  return (bytes) => {
    for (let at = 0; at < bytes.length;) {
      if (headBytes < HEAD_BYTES) {
        head[headBytes++] = bytes[at++]!;
        if (headBytes < HEAD_BYTES) continue;
        begin();
      } else {
        const part = bytes.subarray(at, at + bytesLeft);
        body?.push(...part);
        at += part.length;
        bytesLeft -= part.length;
      }
      if (bytesLeft === 0) end();
    }
  };
}

/** Whether it asks for a password in a way that the driver can answer. */
function isChallenge(body: readonly number[]): boolean {
  if (body.length < 4) return false;
  const view = new DataView(Uint8Array.from(body).buffer);
  const text = String.fromCharCode(...body.slice(4));
  switch (view.getUint32(0)) {
    case 0:
    case 3:
    case 12:
      return true;
    case 5:
      return body.length === 8;
    case 10:
      return text.split("\0").includes("SCRAM-SHA-256");
    case 11: {
      const rounds = /^r=[^,]+,s=[A-Za-z0-9+/]+=*,i=([1-9][0-9]{0,9})$/.exec(
        text,
      );
      return rounds !== null && Number(rounds[1]) <= SCRAM_ROUNDS_MAX;
    }
  }
  return false;
}

/** Whether every column has a name with its end, and 18 bytes after it. */
function isColumns(body: readonly number[]): boolean {
  if (body.length < 2) return false;
  let at = 2;
  for (let columns = body[0]! * 256 + body[1]!; columns > 0; columns--) {
    const end = body.indexOf(0, at);
    if (end < 0) return false;
    at = end + 1 + 18;
  }
  return at === body.length;
}
