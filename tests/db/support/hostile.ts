/**
 * Ring 3. Servers that speak PostgreSQL's protocol wrongly, for the worker that
 * has to live through it.
 *
 * @module
 */

/** What a server does with one connection. */
export interface Conversation {
  /** Waits for the client's next message. */
  read(): Promise<void>;
  /** Sends bytes. */
  send(...parts: (Uint8Array | string | readonly number[])[]): Promise<void>;
}

/** A server that does to each client what it is told, and closes. */
export class HostileServer implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.Conn>();
  /** What is done to the next client. */
  talk: (client: Conversation) => Promise<void> = () => Promise.resolve();

  constructor() {
    this.#serve();
  }

  /** The server as a setting of the worker. */
  url(query = "?sslmode=disable"): string {
    const { port } = this.#listener.addr as Deno.NetAddr;
    return `postgres://user:password@127.0.0.1:${port}/db${query}`;
  }

  async #serve(): Promise<void> {
    for await (const client of this.#listener) this.#talkTo(client);
  }

  async #talkTo(client: Deno.Conn): Promise<void> {
    this.#open.add(client);
    const buffer = new Uint8Array(65_536);
    try {
      await this.talk({
        async read() {
          if (await client.read(buffer) === null) throw new Error("gone");
        },
        async send(...parts) {
          const bytes = concat(...parts);
          for (let at = 0; at < bytes.length;) {
            at += await client.write(bytes.subarray(at));
          }
        },
      });
    } catch {
      // The client has had enough.
    }
    this.#open.delete(client);
    try {
      client.close();
    } catch {
      // Closed with the server.
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const client of this.#open) client.close();
    return Promise.resolve();
  }
}

/** Bytes one after the other; a text is its UTF-8, a list its bytes. */
export function concat(
  ...parts: (Uint8Array | string | readonly number[])[]
): Uint8Array<ArrayBuffer> {
  const pieces = parts.map((part) =>
    typeof part === "string"
      ? new TextEncoder().encode(part)
      : new Uint8Array(part)
  );
  const all = new Uint8Array(
    pieces.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** A number in four bytes, as the protocol writes it. */
export function int32(value: number): number[] {
  return [value >>> 24, value >>> 16, value >>> 8, value].map((byte) =>
    byte & 255
  );
}

/** A message: its type, its length unless another one is told, its body. */
export function message(
  type: string,
  body: Uint8Array | string | readonly number[] = [],
  length?: number,
): Uint8Array<ArrayBuffer> {
  const bytes = concat(body);
  return concat(type, int32(length ?? bytes.length + 4), bytes);
}

/** What a server says until it can be asked. */
export const READY: Uint8Array = concat(
  message("R", int32(0)),
  message("K", [...int32(1), ...int32(2)]),
  message("Z", "I"),
);

/** One column "answer" of type text. */
export const COLUMNS: Uint8Array = message(
  "T",
  concat([0, 1], "answer\0", int32(0), [0, 0], int32(25), [0, 0], int32(-1), [
    0,
    0,
  ]),
);

/** A row of one text. */
export function row(text: string): Uint8Array {
  const bytes = concat(text);
  return message("D", concat([0, 1], int32(bytes.length), bytes));
}

/** The end of an answer. */
export const DONE: Uint8Array = concat(
  message("C", "SELECT 1\0"),
  message("Z", "I"),
);
