/**
 * Ring 3. A gate before libSQL that notes what passes, and may hold it back.
 *
 * @module
 */

/** What a client sent to libSQL. */
export interface Gate extends AsyncDisposable {
  readonly url: string;
  requests: number;
  /** Bytes of the largest argument that holds several rows. */
  rowsBytesMax: number;
  /** Bytes of the largest argument of any kind. */
  argumentBytesMax: number;
  /** Requests that are under way at once, at most. */
  atOnceMax: number;
}

const encoder = new TextEncoder();

/** Every text that is bound to a statement, wherever in the request. */
function* argumentsIn(value: unknown): Generator<string> {
  if (typeof value !== "object" || value === null) return;
  const { type, value: text } = value as Record<string, unknown>;
  if (type === "text" && typeof text === "string") yield text;
  for (const inner of Object.values(value)) yield* argumentsIn(inner);
}

/** Whether an argument is rows as JSON, and more than one of them. */
function isRows(text: string): boolean {
  return text.startsWith("[[") && /"\],\["/.test(text.slice(0, 5_000_000));
}

/**
 * Opens a gate.
 *
 * @param to Where libSQL is.
 * @param options How long each request is held back.
 * @returns The gate with its counts.
 */
export function openGate(to: string, options: { delayMs?: number } = {}): Gate {
  const { delayMs = 0 } = options;
  let atOnce = 0;
  const gate = {
    requests: 0,
    rowsBytesMax: 0,
    argumentBytesMax: 0,
    atOnceMax: 0,
  };
  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    async (request) => {
      gate.requests += 1;
      gate.atOnceMax = Math.max(gate.atOnceMax, ++atOnce);
      try {
        const { method, headers, url } = request;
        const body = method === "GET" ? undefined : await request.text();
        for (const text of argumentsIn(JSON.parse(body ?? "null"))) {
          const bytes = encoder.encode(text).length;
          gate.argumentBytesMax = Math.max(gate.argumentBytesMax, bytes);
          if (isRows(text)) {
            gate.rowsBytesMax = Math.max(gate.rowsBytesMax, bytes);
          }
        }
        if (delayMs > 0) {
          await new Promise((resolve) => setTimeout(resolve, delayMs));
        }
        const answer = await fetch(to + new URL(url).pathname, {
          method,
          headers: { "content-type": headers.get("content-type") ?? "" },
          body,
        });
        return new Response(await answer.text(), { status: answer.status });
      } finally {
        atOnce -= 1;
      }
    },
  );
  return Object.assign(gate, {
    url: `http://127.0.0.1:${server.addr.port}`,
    [Symbol.asyncDispose]: () => server.shutdown(),
  });
}
