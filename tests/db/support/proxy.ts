/**
 * Ring 3. A TCP proxy that notes which protocol messages a PostgreSQL client sends.
 *
 * @module
 */

/** A running proxy. */
export interface RecordingProxy extends AsyncDisposable {
  readonly port: number;
  /** The type bytes of the client's messages, "startup" for the first. */
  readonly messages: string[];
  /** What each connection began with: TLS, a request for it, or a start in clear. */
  readonly starts: string[];
}

/** Starts a proxy in front of a server on this machine. */
export function recordingProxy(to: number): RecordingProxy {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const messages: string[] = [];
  const starts: string[] = [];
  const open: Deno.Conn[] = [];
  const pipe = async (
    from: Deno.Conn,
    into: Deno.Conn,
    see?: (bytes: Uint8Array) => void,
  ) => {
    const buffer = new Uint8Array(65_536);
    try {
      for (
        let n = await from.read(buffer);
        n !== null;
        n = await from.read(buffer)
      ) {
        see?.(buffer.slice(0, n));
        for (let sent = 0; sent < n;) {
          sent += await into.write(buffer.subarray(sent, n));
        }
      }
      await into.closeWrite();
    } catch {
      // One side is gone; the other is closed with the proxy.
    }
  };
  const served = (async () => {
    for await (const client of listener) {
      const server = await Deno.connect({ hostname: "127.0.0.1", port: to });
      open.push(client, server);
      const note = frontendMessages(messages);
      let isFirst = true;
      pipe(client, server, (bytes) => {
        if (isFirst) starts.push(startOf(bytes));
        if (starts.at(-1) === "start") note(bytes);
        isFirst = false;
      });
      pipe(server, client);
    }
  })();
  return {
    port: listener.addr.port,
    messages,
    starts,
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

/** What a connection begins with: a TLS handshake's record, or a length of four. */
function startOf(bytes: Uint8Array): string {
  return bytes[0] === 0x16 ? "TLS" : bytes.length === 8 ? "request" : "start";
}

/** Cuts a client's bytes into messages: a type byte, then a length of four. */
function frontendMessages(into: string[]): (bytes: Uint8Array) => void {
  let rest = new Uint8Array();
  let started = false;
  return (bytes) => {
    rest = new Uint8Array([...rest, ...bytes]);
    for (;;) {
      const head = started ? 1 : 0;
      if (rest.length < head + 4) return;
      const length = new DataView(rest.buffer).getUint32(head);
      if (rest.length < head + length) return;
      into.push(started ? String.fromCharCode(rest[0]!) : "startup");
      started = true;
      rest = rest.slice(head + length);
    }
  };
}
