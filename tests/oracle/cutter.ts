/**
 * Ring 3. A TCP proxy that cuts connections in the middle of requests and
 * answers, and holds bytes back.
 *
 * Promise: what passes is what was sent, up to where it was cut.
 *
 * @module
 */

/** Which way bytes go: to the server, or back to the client. */
export type Way = "request" | "answer";

/** What happens to a connection. */
export interface Cut {
  readonly way: Way;
  /** After so many bytes that way. */
  readonly afterBytes: number;
  /** Both ends closed at once; or nothing passes any more that way until `release`. */
  readonly kind: "close" | "hold";
}

/** A running proxy. */
export class Cutter implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #open = new Set<Deno.TcpConn>();
  readonly #served: Promise<void>;
  #armed: Cut[] = [];
  #held: PromiseWithResolvers<void>[] = [];
  /** How many connections were cut or held. */
  cuts = 0;

  constructor(private readonly to: () => number) {
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#served = this.#serve();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** The next bytes that way suffer it, on whichever connection they come. */
  arm(cut: Cut): void {
    this.#armed.push(cut);
  }

  /** Lets pass what was held, and forgets what was armed. */
  release(): void {
    this.#armed = [];
    for (const held of this.#held.splice(0)) held.resolve();
  }

  /** Closes every connection there is. */
  cutAll(): void {
    for (const connection of this.#open) close(connection);
    this.#open.clear();
  }

  async #serve(): Promise<void> {
    for await (const client of this.#listener) {
      this.#connect(client).catch(() => close(client));
    }
  }

  async #connect(client: Deno.TcpConn): Promise<void> {
    const server = await Deno.connect({
      hostname: "127.0.0.1",
      port: this.to(),
    });
    this.#open.add(client).add(server);
    await Promise.all([
      this.#pipe(client, server, "request"),
      this.#pipe(server, client, "answer"),
    ]);
    this.#open.delete(client);
    this.#open.delete(server);
    close(client);
    close(server);
  }

  async #pipe(from: Deno.TcpConn, into: Deno.TcpConn, way: Way): Promise<void> {
    const buffer = new Uint8Array(65_536);
    let cut: { afterBytes: number; kind: Cut["kind"] } | undefined;
    try {
      for (;;) {
        const n = await from.read(buffer);
        if (n === null) break;
        if (cut === undefined) {
          const at = this.#armed.findIndex((armed) => armed.way === way);
          if (at >= 0) cut = { ...this.#armed.splice(at, 1)[0]! };
        }
        const pass = Math.min(n, cut?.afterBytes ?? n);
        await writeAll(into, buffer.subarray(0, pass));
        if (cut !== undefined) cut.afterBytes -= pass;
        if (pass === n) continue;
        this.cuts += 1;
        if (cut!.kind === "close") throw new Error("cut");
        const held = Promise.withResolvers<void>();
        this.#held.push(held);
        await held.promise;
        cut = undefined;
        await writeAll(into, buffer.subarray(pass, n));
      }
      await into.closeWrite();
    } catch {
      // One side is gone: so is the other.
      close(from);
      close(into);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.release();
    this.cutAll();
    await this.#served.catch(() => {});
  }
}

async function writeAll(into: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) {
    sent += await into.write(bytes.subarray(sent));
  }
}

function close(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch {
    // Closed already.
  }
}
