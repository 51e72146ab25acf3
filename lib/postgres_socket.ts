/**
 * Ring 1. The connection below the PostgreSQL driver: TCP, then TLS where the
 * setting asks for it.
 *
 * Promise: what the server says is looked at before the driver reads it, with
 * TLS and without.
 *
 * @module
 */

import { connect, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { createReplyCheck } from "./postgres_replies.ts";

/** What the driver knows of the servers; its own names. */
interface Target {
  readonly host: readonly string[];
  readonly port: readonly number[];
  /** Seconds. */
  readonly connect_timeout: number;
}

/** How TLS is asked for: libpq's words. */
interface Tls {
  /** "prefer", "require", "verify-full" ...; null for none. */
  readonly mode: string | null;
  /** Whether it begins with the first byte. */
  readonly isDirect: boolean;
}

const NONE = ["disable", "false"];
/** Words that ask for TLS and not who answers, as libpq has them. */
const UNVERIFIED = ["require", "allow", "prefer"];
/** The request for TLS, and the one answer that grants it. */
const SSL_REQUEST = new Uint8Array([0, 0, 0, 8, 4, 210, 22, 47]);
const GRANTED = "S".charCodeAt(0);
const REFUSED = "N".charCodeAt(0);

/**
 * Makes the options by which the driver gets its connection from here.
 *
 * @param url The connection string, which says how TLS is asked for.
 * @param options Bytes that an answer to one query may have.
 * @returns The options; the driver sees no TLS, as it is below.
 */
export function connectionOptions(
  url: string,
  options: { answerBytesMax: number },
): { ssl: false; socket: (target: Target) => Promise<Socket> } {
  const { searchParams } = new URL(url);
  const asked = searchParams.get("sslrootcert") === "system"
    ? "verify-full"
    : searchParams.get("sslmode") ?? searchParams.get("ssl") ?? "disable";
  const tls = {
    mode: NONE.includes(asked) ? null : asked,
    isDirect: searchParams.get("sslnegotiation") === "direct",
  };
  return {
    ssl: false,
    async socket({ host: hosts, port, connect_timeout }) {
      let failure: unknown;
      for (const [at, host] of hosts.entries()) {
        try {
          const timeoutMs = connect_timeout * 1000;
          const socket = await open(
            { host, port: port[at]!, timeoutMs },
            tls,
          );
          return checked(socket, createReplyCheck(options.answerBytesMax));
        } catch (error) {
          failure = error;
        }
      }
      throw failure;
    },
  };
}

/** Opens one connection, within the time there is. */
async function open(
  { host, port, timeoutMs }: { host: string; port: number; timeoutMs: number },
  { mode, isDirect }: Tls,
): Promise<Socket> {
  const socket = connect({ host, port });
  const timer = setTimeout(
    () => socket.destroy(new Error("no connection in time")),
    timeoutMs,
  );
  try {
    await happens(socket, "connect");
    if (mode === null) return socket;
    if (!isDirect && !await isGranted(socket)) {
      if (mode === "prefer") return socket;
      throw new Error("TLS was refused");
    }
    const encrypted = connectTls({
      socket,
      servername: isIP(host) ? undefined : host,
      ...(isDirect ? { ALPNProtocols: ["postgresql"] } : {}),
      ...(UNVERIFIED.includes(mode) ? { rejectUnauthorized: false } : {}),
    });
    await happens(encrypted, "secureConnect");
    return encrypted;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Asks for TLS. */
async function isGranted(socket: Socket): Promise<boolean> {
  socket.write(SSL_REQUEST);
  const answer = await happens(socket, "data") as Uint8Array;
  // More than the one byte was slipped in before the encryption.
  if (answer.length !== 1 || ![GRANTED, REFUSED].includes(answer[0]!)) {
    throw new Error("no PostgreSQL answered");
  }
  return answer[0] === GRANTED;
}

/** Waits for an event, or for the end of the socket. */
function happens(socket: Socket, event: string): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const closed = () => reject(new Error("the connection was closed"));
  socket.once(event, resolve).once("error", reject).once("close", closed);
  return promise.finally(() => {
    socket.off(event, resolve).off("close", closed);
    // An error that nobody listens for would end the process.
    socket.on("error", () => {}).off("error", reject);
  });
}

/** Shows the check all that the driver would read; what it refuses ends the socket. */
function checked(
  socket: Socket,
  check: (bytes: Uint8Array) => void,
): Socket {
  const emit = socket.emit.bind(socket);
  socket.emit = (event: string | symbol, ...args: unknown[]) => {
    if (event === "data") {
      try {
        check(args[0] as Uint8Array);
      } catch (error) {
        socket.destroy(error as Error);
        return false;
      }
    }
    return emit(event, ...args);
  };
  return socket;
}
