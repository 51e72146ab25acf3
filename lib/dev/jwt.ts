/**
 * Ring 3. JSON web tokens by a shared secret.
 *
 * @module
 */

import { toBase64 } from "../bytes.ts";

/**
 * Signs a token (HS256).
 *
 * @param claims What it says.
 * @param secret What it is signed with.
 * @returns The JWT.
 */
export async function signToken(
  claims: Record<string, unknown>,
  secret: string,
): Promise<string> {
  const text = [{ alg: "HS256", typ: "JWT" }, claims]
    .map((part) => base64Url(new TextEncoder().encode(JSON.stringify(part))))
    .join(".");
  return `${text}.${await hs256(text, secret)}`;
}

/**
 * Signs a text as JWTs are.
 *
 * @param text The text.
 * @param secret What it is signed with.
 * @returns The signature, as base64 for addresses.
 */
export async function hs256(text: string, secret: string): Promise<string> {
  const bytes = new TextEncoder();
  const key = await crypto.subtle.importKey(
    "raw",
    bytes.encode(secret),
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign"],
  );
  const made = await crypto.subtle.sign("HMAC", key, bytes.encode(text));
  return base64Url(new Uint8Array(made));
}

function base64Url(bytes: Uint8Array): string {
  return toBase64(bytes)
    .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}
