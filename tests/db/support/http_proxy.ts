/**
 * Ring 3. A proxy before sqld that loses requests and answers.
 *
 * @module
 */

/** What a proxy does with a request: pass it on unless told. */
export type Fault =
  | undefined
  | { readonly status: number }
  /** It is refused, and carried out all the same when its time has come. */
  | { readonly status: number; readonly later: Promise<void> }
  /** It is carried out; the answer is lost. */
  | { readonly lose: number };

/** A proxy before sqld. */
export class Proxy implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #closed = Promise.withResolvers<Fault>();
  /** How many requests came. */
  requests = 0;
  /** Decides by a request's body. */
  decide: (body: string) => Fault | Promise<Fault> = () => undefined;
  /** Called when a request was carried out, before its answer goes back. */
  afterwards: (body: string) => Promise<void> | void = () => {};

  constructor(url: () => string) {
    this.#server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen: () => {} },
      async (request) => {
        this.requests += 1;
        const body = await request.text().catch(() => null);
        if (body === null) return new Response("cut", { status: 400 });
        // A request that is held back must not hold back a test that failed.
        const fault = await Promise.race([
          this.decide(body),
          this.#closed.promise,
        ]);
        if (fault && "status" in fault && !("later" in fault)) {
          return new Response("fault", { status: fault.status });
        }
        const { pathname } = new URL(request.url);
        const headers = new Headers(request.headers);
        headers.delete("host");
        const carryOut = async () => {
          const answer = await fetch(url() + pathname, {
            method: request.method,
            headers,
            body: request.method === "GET" ? undefined : body,
          });
          const text = await answer.text();
          await this.afterwards(body);
          return { answer, text };
        };
        if (fault && "later" in fault) {
          fault.later.then(carryOut).catch(() => {});
          return new Response("fault", { status: fault.status });
        }
        const carried = await carryOut().catch(() => null);
        if (carried === null) return new Response("none", { status: 502 });
        const { answer, text } = carried;
        if (fault) return new Response("lost", { status: fault.lose });
        return new Response(text, {
          status: answer.status,
          headers: {
            "content-type": answer.headers.get("content-type") ?? "text/plain",
          },
        });
      },
    );
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.resolve({ status: 503 });
    await this.#server.shutdown();
  }
}

/** Whether a request applies a batch. */
export function isApply(body: string): boolean {
  return body.includes("INSERT INTO _libsql_sync") &&
    body.includes("DO UPDATE SET epoch");
}
