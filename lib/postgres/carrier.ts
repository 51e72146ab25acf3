/**
 * Ring 1. Carries calls to the source over the PostgreSQL protocol.
 *
 * Promise: a call is one statement of the simple protocol: one round trip, no
 * session state, no named statement, so that any pooler can stand in between.
 *
 * @module
 */

import type { Socket } from "node:net";
import process from "node:process";
import { type Carrier, IN_PIECES } from "../chain/claim.ts";
import { SyncError } from "../errors.ts";
import {
  authentication,
  type Bytes,
  createReader,
  errorFields,
  type Message,
  scramMessage,
  startupMessage,
  TERMINATE,
  textIn,
  textMessage,
} from "./message.ts";
import { clientFinal, clientFirst, MECHANISM } from "./scram.ts";
import type { PostgresAddress } from "./url.ts";
import { sourceError } from "../source/source_error.ts";
import { toBase64 } from "../bytes.ts";

/** A carrier with a connection. */
export interface PostgresCarrier extends Carrier {
  /** Ends the connection. */
  close(): Promise<void>;
}

/** Ends a session whose caller has gone. */
const INBOX_MAX = 1_000;
/** Pieces of an answer: many more than there are of 16 KiB in the largest. */
const ROWS_MAX = 10_000;
const CLOSE_MS = 1_000;

/**
 * Carries calls over a connection, opened when first needed and again when it
 * was lost. Calls take turns.
 *
 * @param open Opens a socket.
 * @param options Who asks for which database; how long a call may take, in
 * milliseconds, and how large an answer may be.
 * @returns The carrier.
 */
export function createPostgresCarrier(
  open: () => Promise<Socket>,
  options: {
    address: PostgresAddress;
    timeoutMs: number;
    bytesMax: number;
  },
): PostgresCarrier {
  const { address, timeoutMs, bytesMax } = options;
  let session: Session | null = null;
  let turn: Promise<unknown> = Promise.resolve();

  const ask = async (query: string, attempt: Attempt): Promise<unknown> => {
    if (session?.isOpen !== true) {
      session = null;
      attempt.session = createSession(await open(), bytesMax);
      if (attempt.isOver) attempt.session.destroy();
      await start(attempt.session, address);
      session = attempt.session;
    }
    attempt.session = session;
    // Nothing, as for NULL, says nothing.
    return JSON.parse(await session.query(query) || "null");
  };
  return {
    call(name, request) {
      // Base64 has no character with a meaning in SQL: keys and names stay data,
      // under any settings of the session.
      const argument = toBase64(
        new TextEncoder().encode(JSON.stringify(request)),
      );
      const call =
        `libsql_sync.${name}(pg_catalog.convert_from(pg_catalog.decode('${argument}', 'base64'), 'UTF8')::pg_catalog.json)`;
      const query = IN_PIECES.has(name)
        ? `select pg_catalog.unnest(${call})`
        : `select ${call}::pg_catalog.text`;
      const mine = turn.then(async () => {
        const attempt: Attempt = { session: null, isOver: false };
        try {
          return await within(timeoutMs, () => ask(query, attempt));
        } catch (error) {
          attempt.isOver = true;
          // Drop the connection: late bytes would be read as the next call's answer.
          if (!(error instanceof ServerError) || session !== attempt.session) {
            attempt.session?.destroy();
          }
          throw translate(error, name);
        }
      });
      turn = mine.catch(() => {});
      return mine;
    },
    async close() {
      await session?.close();
    },
  };
}

/** What the server itself refused. */
class ServerError extends Error {
  constructor(readonly state: string, message: string) {
    super(message);
  }
}

type Session = ReturnType<typeof createSession>;

/** One call: the session it uses, and whether its caller has given up. */
interface Attempt {
  session: Session | null;
  isOver: boolean;
}

/** Messages to and from a server. */
function createSession(socket: Socket, bytesMax: number) {
  const read = createReader(bytesMax);
  const inbox: Message[] = [];
  const closed = Promise.withResolvers<void>();
  let waiting: PromiseWithResolvers<Message> | null = null;
  let failure: Error | null = null;

  const fail = (error: Error) => {
    failure ??= error;
    waiting?.reject(failure);
    waiting = null;
    socket.destroy();
  };
  socket.on("data", (bytes: Bytes) => {
    try {
      for (const message of read(bytes)) {
        // Notices, settings and notifications come at any time.
        if (/[NSA]/.test(message.type)) continue;
        if (waiting === null) inbox.push(message);
        else waiting.resolve(message);
        waiting = null;
      }
      if (inbox.length > INBOX_MAX) throw new RangeError("more than asked for");
    } catch (error) {
      fail(error as Error);
    }
  });
  socket.on("error", fail);
  socket.on("close", () => {
    fail(new Error("the connection was closed"));
    closed.resolve();
  });

  const next = (): Promise<Message> => {
    const message = inbox.shift();
    if (message !== undefined) return Promise.resolve(message);
    if (failure !== null) return Promise.reject(failure);
    waiting = Promise.withResolvers<Message>();
    return waiting.promise;
  };
  return {
    get isOpen() {
      return failure === null;
    },
    next,
    send: (bytes: Bytes) => void socket.write(bytes),
    destroy: () => socket.destroy(),
    async query(text: string): Promise<string> {
      socket.write(textMessage("Q", text));
      const rows: Bytes[] = [];
      let bytes = 0;
      let error: ServerError | null = null;
      for (;;) {
        const { type, body } = await next().catch((lost) => {
          // A server that leaves says why before it does.
          throw error ?? lost;
        });
        if (type === "D") {
          rows.push(body);
          bytes += body.length;
          if (bytes > bytesMax || rows.length > ROWS_MAX) {
            throw new RangeError(`${bytes} bytes in ${rows.length} rows`);
          }
        } else if (type === "E") error = errorOf(body);
        else if (type === "Z") {
          if (error !== null) throw error;
          return textIn(rows);
        } else if (type !== "T" && type !== "C") {
          throw new RangeError("an unexpected message");
        }
      }
    },
    async close() {
      if (failure !== null) return;
      const timer = setTimeout(() => socket.destroy(), CLOSE_MS);
      socket.end(TERMINATE);
      await closed.promise;
      clearTimeout(timer);
    },
  };
}

/** Starts a session: says who we are, proves it, and has the server prove itself. */
async function start(session: Session, address: PostgresAddress) {
  const { user, password, database, settings } = address;
  const nonce = toBase64(crypto.getRandomValues(new Uint8Array(18)));
  let proof: string | null = null;
  session.send(startupMessage({ user, database, ...settings }));
  for (;;) {
    const { type, body } = await session.next();
    if (type === "Z") return;
    if (type === "E") throw errorOf(body);
    if (type !== "R") continue;
    const { code, rest } = authentication(body);
    const text = new TextDecoder().decode(rest);
    if (code === 0 && proof === null) continue;
    if (code === 3 && address.verify) {
      session.send(textMessage("p", password));
    } else if (code === 5) {
      session.send(textMessage("p", md5(user, password, rest)));
    } else if (code === 10 && text.split("\0").includes(MECHANISM)) {
      session.send(scramMessage(clientFirst(nonce), MECHANISM));
    } else if (code === 11) {
      const final = await clientFinal(text, { nonce, password });
      proof = final.proof;
      session.send(scramMessage(final.message));
    } else if (code === 12 && text === proof) {
      proof = null;
    } else {
      throw new SyncError(
        "config_invalid",
        "Cannot connect to PostgreSQL: expected SCRAM-SHA-256 or md5, or a password over verified TLS; check password_encryption and pg_hba.conf there, and PGMQ_URL",
      );
    }
  }
}

/** The hash an md5 password is sent as. */
function md5(user: string, password: string, salt: Bytes): string {
  // Web Crypto has no md5; where this is not there, nothing can be done.
  const { createHash } = process.getBuiltinModule("node:crypto");
  const hash = (...parts: (string | Bytes)[]) =>
    parts.reduce((made, part) => made.update(part), createHash("md5"))
      .digest("hex");
  return `md5${hash(hash(password, user), salt)}`;
}

function errorOf(body: Bytes): ServerError {
  const { C = "", M = "" } = errorFields(body);
  return new ServerError(C, M);
}

/** What went wrong, as a condition a flow can decide on. */
function translate(error: unknown, name: string): SyncError {
  if (error instanceof SyncError) return error;
  if (!(error instanceof ServerError)) {
    const { code } = error as { code?: unknown };
    return new SyncError(
      "source_unreachable",
      `Cannot call libsql_sync.${name}: expected an answer of PostgreSQL, found ${
        typeof code === "string" ? code : "no connection"
      }; check PGMQ_URL and that the database accepts connections`,
      { cause: error },
    );
  }
  return sourceError(name, {
    state: error.state,
    text: error.message,
    cause: error,
  });
}

/** Waits for a call, and not longer. */
async function within<T>(
  timeoutMs: number,
  start: () => Promise<T>,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() =>
      reject(
        new SyncError(
          "source_unreachable",
          `Cannot call the source: expected an answer within ${timeoutMs} ms, found none`,
        ),
      ), timeoutMs);
  });
  const call = start();
  call.catch(() => {});
  try {
    return await Promise.race([call, late]);
  } finally {
    clearTimeout(timer);
  }
}
