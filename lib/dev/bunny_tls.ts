/**
 * Ring 3. node:tls as a script on Bunny finds it: the client's side alone, each
 * exchange counted.
 *
 * Source: Bunny documentation, scripting/node-tls ("the following client-side
 * API"). Whether a connection counts as a sub-request is not documented: here it
 * does, and so does each time something is written after something was read.
 *
 * @module
 */

import tls from "node:tls";
import { spend } from "./bunny_limits.ts";

/** Opens a connection whose exchanges are counted. */
// deno-lint-ignore no-explicit-any
export function connect(...args: any[]): tls.TLSSocket {
  spend();
  // deno-lint-ignore no-explicit-any
  const socket = (tls.connect as any)(...args) as tls.TLSSocket;
  let hasRead = true;
  let isFirst = true;
  const write = socket.write;
  // deno-lint-ignore no-explicit-any
  (socket as any).write = function (...rest: any[]) {
    // The first belongs to the connection.
    if (hasRead && !isFirst) spend();
    hasRead = false;
    isFirst = false;
    // deno-lint-ignore no-explicit-any
    return (write as any).apply(this, rest);
  };
  const emit = socket.emit;
  // deno-lint-ignore no-explicit-any
  (socket as any).emit = function (...rest: any[]) {
    if (rest[0] === "data") hasRead = true;
    // deno-lint-ignore no-explicit-any
    return (emit as any).apply(this, rest);
  };
  return socket;
}

export const {
  TLSSocket,
  checkServerIdentity,
  createSecureContext,
  rootCertificates,
  getCiphers,
  DEFAULT_MIN_VERSION,
  DEFAULT_MAX_VERSION,
} = tls;

export default {
  connect,
  TLSSocket,
  checkServerIdentity,
  createSecureContext,
  rootCertificates,
  getCiphers,
  DEFAULT_MIN_VERSION,
  DEFAULT_MAX_VERSION,
};
