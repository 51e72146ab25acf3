/**
 * Ring 0. SCRAM-SHA-256, the client's side (RFC 5802 and 7677), as PostgreSQL
 * speaks it.
 *
 * Promise: the password is never sent, and a server that does not know it is
 * found out.
 *
 * @module
 */

import { fromBase64, toBase64 } from "../bytes.ts";

/** The only mechanism: without channel binding. */
export const MECHANISM = "SCRAM-SHA-256";

/** Says that we do not bind the channel. */
const HEADER = "n,,";
/** PostgreSQL's default is 4,096; a server that asks for many more stalls us. */
const ITERATIONS_MAX = 1_000_000;

/**
 * Makes what the client says first.
 *
 * @param nonce Random text without a comma.
 * @returns The message.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(clientFirst("abc"), "n,,n=,r=abc");
 * ```
 */
export function clientFirst(nonce: string): string {
  return `${HEADER}n=,r=${nonce}`;
}

/**
 * Makes what the client says last, and what the server must answer.
 *
 * @param serverFirst What the server answered first.
 * @param secrets The nonce of {@linkcode clientFirst}, and the password.
 * @returns The message, and the server's proof.
 * @throws {RangeError} The server's answer is none.
 *
 * @example The exchange of RFC 7677
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const { proof } = await clientFinal(
 *   "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
 *   { nonce: "rOprNGfwEbeRWgbNEkqO", password: "pencil" },
 * );
 * assertEquals(proof.startsWith("v="), true);
 * ```
 */
export async function clientFinal(
  serverFirst: string,
  { nonce, password }: { nonce: string; password: string },
): Promise<{ message: string; proof: string }> {
  const [, both, salt, count] =
    /^r=([^,]+),s=([A-Za-z0-9+/=]+),i=(\d{1,9})$/.exec(serverFirst) ?? [];
  const iterations = Number(count);
  if (
    both === undefined || !both.startsWith(nonce) || both === nonce ||
    iterations < 1 || iterations > ITERATIONS_MAX
  ) throw new RangeError("no answer of SCRAM");
  const salted = await crypto.subtle.deriveBits(
    {
      name: "PBKDF2",
      hash: "SHA-256",
      salt: fromBase64(salt!),
      iterations,
    },
    await crypto.subtle.importKey(
      "raw",
      encode(password.normalize("NFKC")),
      "PBKDF2",
      false,
      ["deriveBits"],
    ),
    256,
  );
  const bare = `c=${btoa(HEADER)},r=${both}`;
  const signed = `${
    clientFirst(nonce).slice(HEADER.length)
  },${serverFirst},${bare}`;
  const clientKey = await hmac(salted, "Client Key");
  const stored = await crypto.subtle.digest("SHA-256", clientKey);
  const signature = await hmac(stored, signed);
  const proof = clientKey.map((byte, at) => byte ^ signature[at]!);
  const server = await hmac(await hmac(salted, "Server Key"), signed);
  return {
    message: `${bare},p=${toBase64(proof)}`,
    proof: `v=${toBase64(server)}`,
  };
}

async function hmac(
  key: BufferSource,
  text: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const made = await crypto.subtle.importKey("raw", key, algorithm, false, [
    "sign",
  ]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", made, encode(text)));
}

function encode(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}
