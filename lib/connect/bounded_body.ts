/**
 * Ring 0. Reads a body whose sender decides how long it is.
 *
 * Promise: it holds no more than the bytes that are allowed and one chunk.
 *
 * @module
 */

/**
 * Reads a body to its end.
 *
 * @param reader The body's reader. It is released at the end; cancelling it
 * meanwhile ends the body early.
 * @param bytesMax How many bytes the body may have.
 * @returns The body.
 * @throws {RangeError} The body has more bytes; the rest is cancelled. Else
 * what reading throws.
 *
 * @example
 * ```ts
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * const read = (bytesMax: number) =>
 *   readBounded(new Blob(["abc"]).stream().getReader(), bytesMax);
 * assertEquals(await (await read(3)).text(), "abc");
 * await assertRejects(() => read(2), RangeError);
 * ```
 */
export async function readBounded(
  reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>,
  bytesMax: number,
): Promise<Blob> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return new Blob(chunks);
      bytes += value.byteLength;
      if (bytes > bytesMax) {
        reader.cancel().catch(() => {});
        throw new RangeError(`more than ${bytesMax} bytes`);
      }
      chunks.push(value);
    }
  } finally {
    reader.releaseLock();
  }
}
