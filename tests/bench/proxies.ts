/**
 * Ring 3. Proxies before both databases that count what passes, or delay it.
 *
 * @module
 */

/** A TCP proxy. */
export interface TcpProxy extends AsyncDisposable {
  readonly port: number;
}

/** What a TCP proxy does. */
interface TcpOptions {
  /** The port behind it. */
  to: number;
  /** How long each byte of the client is held back. */
  delayMs?: number;
  /** Called with what a client sends, and which connection it is. */
  see?: (bytes: Uint8Array, connection: number) => void;
}

/** Writes all of it. */
async function writeAll(to: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await to.write(bytes.subarray(at));
}

/** Passes bytes on, each as long after it came as it is to be held back. */
async function pipe(
  from: Deno.Conn,
  to: Deno.Conn,
  options: { delayMs: number; see?: (bytes: Uint8Array) => void },
): Promise<void> {
  const { delayMs, see } = options;
  let written = Promise.resolve();
  try {
    for await (const bytes of from.readable.values({ preventCancel: true })) {
      see?.(bytes);
      if (delayMs === 0) {
        await writeAll(to, bytes);
        continue;
      }
      const due = new Promise<void>((resolve) => setTimeout(resolve, delayMs));
      // In their order, and without waiting here: a line is long, not narrow.
      written = written.then(() => due).then(() => writeAll(to, bytes));
      written.catch(() => {});
    }
    await written;
    await to.closeWrite();
  } catch {
    // One side is gone; the other is closed with the proxy.
  }
}

/**
 * Starts a TCP proxy on a free port.
 *
 * @param options What it does.
 * @returns The proxy.
 */
export function startTcpProxy(options: TcpOptions): TcpProxy {
  const { to, delayMs = 0, see } = options;
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const open: Deno.Conn[] = [];
  let connections = 0;
  const served = (async () => {
    for await (const client of listener) {
      const server = await Deno.connect({ hostname: "127.0.0.1", port: to });
      client.setNoDelay();
      server.setNoDelay();
      open.push(client, server);
      const connection = connections++;
      pipe(client, server, {
        delayMs,
        see: see && ((bytes) => see(bytes, connection)),
      });
      pipe(server, client, { delayMs: 0 });
    }
  })();
  return {
    port: listener.addr.port,
    async [Symbol.asyncDispose]() {
      listener.close();
      await served;
      for (const connection of open) {
        try {
          connection.close();
        } catch {
          // Already closed.
        }
      }
    },
  };
}

/** Counts of what reached PostgreSQL. */
export interface SourceCounter extends AsyncDisposable {
  readonly port: number;
  /** Waits of a client for an answer: simple queries, syncs and flushes. */
  calls: number;
  connections: number;
}

const QUERY = "Q".charCodeAt(0);
const SYNC = "S".charCodeAt(0);
const FLUSH = "H".charCodeAt(0);

/**
 * Starts a proxy before PostgreSQL that counts round trips.
 *
 * @param to The server's port.
 * @returns The proxy with its counts.
 */
export function countSource(to: number): SourceCounter {
  // Per connection: bytes of the current message that are still to come, and
  // the head of one that came in pieces.
  const states: { left: number; head: number[]; isStarted: boolean }[] = [];
  const counter = { calls: 0, connections: 0 };
  const see = (bytes: Uint8Array, connection: number) => {
    if (!states[connection]) counter.connections += 1;
    const state = states[connection] ??= {
      left: 0,
      head: [],
      isStarted: false,
    };
    for (let at = 0; at < bytes.length;) {
      const skipped = Math.min(state.left, bytes.length - at);
      at += skipped;
      state.left -= skipped;
      if (at >= bytes.length) return;
      state.head.push(bytes[at++]!);
      // The first message has no type.
      const type = state.isStarted ? 1 : 0;
      if (state.head.length < type + 4) continue;
      if ([QUERY, SYNC, FLUSH].includes(type ? state.head[0]! : 0)) {
        counter.calls += 1;
      }
      const length = new DataView(Uint8Array.from(state.head).buffer);
      state.left = length.getUint32(type) - 4;
      state.head = [];
      // Who only asks for TLS sends four bytes, and then begins.
      state.isStarted ||= state.left !== 4;
    }
  };
  const proxy = startTcpProxy({ to, see });
  return Object.assign(counter, {
    port: proxy.port,
    [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
  });
}

/** Counts of what reached sqld. */
export interface ReplicaCounter extends AsyncDisposable {
  readonly url: string;
  requests: number;
  /** Rows of tables and indexes written, as sqld bills them. */
  rowsWritten: number;
}

/**
 * Starts a proxy before sqld that counts requests and rows written.
 *
 * @param url Where sqld is.
 * @returns The proxy with its counts.
 */
export function countReplica(url: string): ReplicaCounter {
  const counter = { requests: 0, rowsWritten: 0 };
  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    async (request) => {
      counter.requests += 1;
      const { pathname } = new URL(request.url);
      const body = request.method === "GET" ? undefined : await request.bytes();
      const answer = await fetch(url + pathname, {
        method: request.method,
        headers: { "content-type": "application/json" },
        body,
      });
      const text = await answer.text();
      for (const [, rows] of text.matchAll(/"rows_written":(\d+)/g)) {
        counter.rowsWritten += Number(rows);
      }
      return new Response(text, {
        status: answer.status,
        headers: {
          "content-type": answer.headers.get("content-type") ?? "text/plain",
        },
      });
    },
  );
  return Object.assign(counter, {
    url: `http://127.0.0.1:${server.addr.port}`,
    [Symbol.asyncDispose]: () => server.shutdown(),
  });
}

/**
 * A PostgreSQL address by way of a proxy.
 *
 * @param url The address.
 * @param port The proxy's port.
 * @returns The address with that port.
 */
export function throughPort(url: string, port: number): string {
  const through = new URL(url);
  through.port = String(port);
  return through.href;
}
