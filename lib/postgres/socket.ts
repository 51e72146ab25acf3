/**
 * Ring 1. Opens the way to a PostgreSQL server: TLS from the first byte, TLS by
 * request, or plain TCP.
 *
 * Promise: only `node:tls` is needed for the first of them; nothing is sent to
 * a server that did not prove itself where it has to.
 *
 * @module
 */

import type { Socket } from "node:net";
import process from "node:process";
import tls from "node:tls";
import { SyncError } from "../errors.ts";
import { SSL_REQUEST } from "./message.ts";
import type { PostgresAddress } from "./url.ts";

/**
 * Connects.
 *
 * @param address Where to, and how.
 * @param options The CA to verify by, as PEM; without one, the well-known ones.
 * How long it may take, in milliseconds.
 * @returns The socket, which ends as its user says.
 * @throws {SyncError} `config_invalid`: this runtime or the server has not what
 * the address asks for. Else what the runtime throws.
 */
export async function openSocket(
  address: PostgresAddress,
  options: { ca?: string; timeoutMs: number },
): Promise<Socket> {
  const { host, port, direct } = address;
  let socket: Socket | undefined;
  const timer = setTimeout(
    () => socket?.destroy(new Error("no connection in time")),
    options.timeoutMs,
  );
  const secure = async (
    from: { host: string; port: number } | {
      socket: Socket;
    },
  ) => {
    socket = tls.connect({
      ...from,
      // A server with several names needs to know which one is meant. An IP address is not a name.
      servername: isAddress(host) ? undefined : host,
      rejectUnauthorized: address.verify,
      ...(options.ca ? { ca: options.ca } : {}),
      ...(direct ? { ALPNProtocols: ["postgresql"] } : {}),
    });
    await happened(socket, "secureConnect");
    // Each message is waited for: holding one back until the last is
    // acknowledged took 40 ms for each of two on the way in.
    socket.setNoDelay();
    return socket;
  };
  try {
    if (direct) return await secure({ host, port });
    socket = tcp().connect({ host, port });
    await happened(socket, "connect");
    socket.setNoDelay();
    if (address.tls === "disable") return socket;
    socket.write(SSL_REQUEST);
    const answer = await happened(socket, "data") as Uint8Array;
    // More than one byte before TLS began: a third party sent it.
    if (answer.length === 1 && answer[0] === 0x53) {
      return await secure({ socket });
    }
    if (answer[0] !== 0x4e || address.tls === "require") {
      throw new SyncError(
        "config_invalid",
        "Cannot connect to PostgreSQL: expected TLS, found a server that does not offer it; check sslmode in PGMQ_URL",
      );
    }
    return socket;
  } catch (error) {
    socket?.destroy();
    throw isOfCertificate(error)
      ? new SyncError(
        "config_invalid",
        "Cannot connect to PostgreSQL: its certificate could not be verified; set PGMQ_CA to the certificate of its CA, and check the host in PGMQ_URL",
        { cause: error },
      )
      : error;
  } finally {
    clearTimeout(timer);
  }
}

/** node:net, which not every runtime has. */
function tcp(): typeof import("node:net") {
  let net: typeof import("node:net") | undefined;
  try {
    net = process.getBuiltinModule("node:net");
  } catch {
    // This function is missing as well.
  }
  if (net !== undefined) return net;
  throw new SyncError(
    "config_invalid",
    "Cannot connect to PostgreSQL: this runtime has no plain TCP; add sslnegotiation=direct to PGMQ_URL (PostgreSQL 17), or use https://",
  );
}

/** Waits for an event; an error or the end of the socket is thrown. */
async function happened(socket: Socket, event: string): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const onClose = () => reject(new Error("the connection was closed"));
  socket.once(event, resolve);
  socket.on("error", reject);
  socket.once("close", onClose);
  try {
    return await promise;
  } finally {
    socket.removeListener(event, resolve);
    socket.removeListener("close", onClose);
    // An error without a listener ends the process.
    socket.on("error", () => {});
    socket.removeListener("error", reject);
  }
}

function isOfCertificate(error: unknown): boolean {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return /certificate|CERT_|ALTNAME/i.test(`${code} ${message}`);
}

function isAddress(host: string): boolean {
  return /^[\d.]+$/.test(host) || host.includes(":");
}
