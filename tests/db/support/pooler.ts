/**
 * Ring 3. A stand-in for a pooler in transaction mode, such as Supavisor on port
 * 6543: each transaction goes to the next of three connections, so that nothing
 * of a session is there for the next one.
 *
 * @module
 */

import {
  authentication,
  type Bytes,
  createReader,
  type Message,
  scramMessage,
  startupMessage,
  textMessage,
} from "../../../lib/postgres/message.ts";
import {
  clientFinal,
  clientFirst,
  MECHANISM,
} from "../../../lib/postgres/scram.ts";

/** A running pooler. */
export interface Pooler extends AsyncDisposable {
  /** Its connection string. */
  readonly url: string;
  /** How many transactions each of its connections had. */
  readonly transactions: readonly number[];
}

const BACKENDS = 3;
const BYTES_MAX = 64 * 1_048_576;
const NONCE = "a-nonce-of-the-pooler";
/** AuthenticationOk, and ReadyForQuery outside a transaction. */
const WELCOME = new Uint8Array([
  ...[0x52, 0, 0, 0, 8, 0, 0, 0, 0],
  ...[0x5a, 0, 0, 0, 5, 0x49],
]);
const NO_TLS = new Uint8Array([0x4e]);

/** Reads messages from one side. */
class Peer {
  readonly #read = createReader(BYTES_MAX);
  readonly #inbox: Message[] = [];
  readonly #buffer = new Uint8Array(65_536);

  constructor(readonly conn: Deno.Conn) {}

  /** The next message; null at the end. */
  async next(): Promise<Message | null> {
    while (this.#inbox.length === 0) {
      const bytes = await this.bytes();
      if (bytes === null) return null;
      this.#inbox.push(...this.#read(bytes));
    }
    return this.#inbox.shift()!;
  }

  /** Some bytes; null at the end. */
  async bytes(): Promise<Bytes | null> {
    const n = await this.conn.read(this.#buffer).catch(() => null);
    return n === null ? null : this.#buffer.slice(0, n);
  }

  async send(bytes: Bytes): Promise<void> {
    for (let sent = 0; sent < bytes.length;) {
      sent += await this.conn.write(bytes.subarray(sent));
    }
  }
}

/** A message as it came. */
function whole({ type, body }: Message): Bytes {
  const bytes = new Uint8Array(body.length + 5);
  bytes[0] = type.charCodeAt(0);
  new DataView(bytes.buffer).setUint32(1, body.length + 4);
  bytes.set(body, 5);
  return bytes;
}

/** A connection to the server, logged in. */
async function connectBackend(url: URL): Promise<Peer> {
  const conn = await Deno.connect({
    hostname: url.hostname,
    port: Number(url.port),
  });
  conn.setNoDelay();
  const peer = new Peer(conn);
  const password = decodeURIComponent(url.password);
  await peer.send(
    startupMessage({ user: url.username, database: url.pathname.slice(1) }),
  );
  for (;;) {
    const message = await peer.next();
    if (message === null || message.type === "E") {
      throw new Error("the pooler cannot log in");
    }
    if (message.type === "Z") return peer;
    if (message.type !== "R") continue;
    const { code, rest } = authentication(message.body);
    const text = new TextDecoder().decode(rest);
    if (code === 3) await peer.send(textMessage("p", password));
    if (code === 10) {
      await peer.send(scramMessage(clientFirst(NONCE), MECHANISM));
    }
    if (code === 11) {
      const secrets = { nonce: NONCE, password };
      await peer.send(scramMessage((await clientFinal(text, secrets)).message));
    }
  }
}

/**
 * Starts a pooler before a server on this machine.
 *
 * @param databaseUrl What its own connections use; clients are let in as they are.
 * @returns The pooler.
 */
export function startPooler(databaseUrl: string): Pooler {
  const to = new URL(databaseUrl);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const transactions = Array.from({ length: BACKENDS }, () => 0);
  const backends: (Peer | null)[] = transactions.map(() => null);
  const busy = transactions.map(() => Promise.resolve());
  const clients = new Set<Deno.Conn>();
  let turn = 0;

  /** Carries one transaction: from its first message to the server's rest. */
  const carry = async (client: Peer, first: Message): Promise<void> => {
    const at = turn++ % BACKENDS;
    const mine = busy[at]!.then(async () => {
      transactions[at]! += 1;
      const backend = backends[at] ??= await connectBackend(to);
      let message: Message | null = first;
      for (;;) {
        if (message === null) throw new Error("the client left");
        await backend.send(whole(message));
        // Only these have the server say that it is ready.
        if (!/[QSX]/.test(message.type)) {
          message = await client.next();
          continue;
        }
        for (;;) {
          const answer = await backend.next();
          if (answer === null) throw new Error("the server left");
          await client.send(whole(answer));
          if (answer.type !== "Z") continue;
          if (answer.body[0] === 0x49) return;
          break;
        }
        message = await client.next();
      }
    }).catch((error) => {
      // What is left of the transaction goes with its connection.
      backends[at]?.conn.close();
      backends[at] = null;
      throw error;
    });
    busy[at] = mine.catch(() => {});
    await mine;
  };
  const serve = async (conn: Deno.TcpConn) => {
    conn.setNoDelay();
    const client = new Peer(conn);
    clients.add(conn);
    try {
      // A request for TLS has 8 bytes; a start has its settings.
      for (;;) {
        const bytes = await client.bytes();
        if (bytes === null) return;
        if (bytes.length > 8) break;
        await client.send(NO_TLS);
      }
      await client.send(WELCOME);
      for (;;) {
        const message = await client.next();
        if (message === null || message.type === "X") return;
        await carry(client, message);
      }
    } catch {
      // The client finds its connection closed.
    } finally {
      clients.delete(conn);
      conn.close();
    }
  };
  const served = (async () => {
    const open: Promise<void>[] = [];
    for await (const conn of listener) open.push(serve(conn));
    await Promise.all(open);
  })();
  const url = new URL(databaseUrl);
  url.port = String(listener.addr.port);
  return {
    url: url.href,
    transactions,
    async [Symbol.asyncDispose]() {
      listener.close();
      for (const conn of clients) conn.close();
      await served.catch(() => {});
      for (const backend of backends) backend?.conn.close();
    },
  };
}
