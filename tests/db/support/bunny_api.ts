/**
 * Ring 3. A stand-in for the part of Bunny's API that deployments use, as
 * documented, and for the edge behind it, which runs what was published.
 *
 * @module
 */

/** A call that arrived. */
interface Call {
  readonly method: string;
  readonly path: string;
  readonly key: string;
}

interface Release {
  readonly Uuid: string;
  readonly Code: string;
  readonly Note: string;
  readonly DateReleased: string;
  Status: 0 | 1;
  readonly Deleted: boolean;
}

type Handler = (request: Request) => Response | Promise<Response>;

export const SCRIPT_ID = "4711";
export const ACCESS_KEY = "the-account-key";
export const DEPLOYMENT_KEY = "the-deployment-key";

/** Bunny, until disposed. */
export class BunnyApi implements AsyncDisposable {
  readonly calls: Call[] = [];
  readonly secrets = new Map<string, string>();
  readonly releases: Release[] = [];
  /** How many requests the code of before still answers. */
  requestsBehind = 2;
  /** What every call answers from now on; null for its own answer. */
  failure: number | null = null;
  #code = "";
  #handler: Handler = () => new Response(null, { status: 400 });
  #api = this.#serve((request) => this.#answer(request));
  #edge = this.#serve((request) => this.#handler(request));

  get apiUrl(): string {
    return `http://127.0.0.1:${this.#api.addr.port}`;
  }

  get workerUrl(): string {
    return `http://127.0.0.1:${this.#edge.addr.port}`;
  }

  #serve(handler: Handler): Deno.HttpServer<Deno.NetAddr> {
    return Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen: () => {} },
      handler,
    );
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const [, path] =
      new RegExp(`^/compute/script/${SCRIPT_ID}/(.*)$`).exec(pathname) ?? [];
    const isAccount = request.headers.get("AccessKey") === ACCESS_KEY;
    const isDeployment =
      request.headers.get("DeploymentKey") === DEPLOYMENT_KEY;
    this.calls.push({
      method: request.method,
      path: path ?? pathname,
      key: isAccount ? "account" : isDeployment ? "deployment" : "none",
    });
    const text = await request.text();
    if (this.failure !== null) {
      return Response.json({ Message: text }, { status: this.failure });
    }
    if (path === undefined) return new Response(null, { status: 404 });
    if (!isAccount && !isDeployment) return new Response(null, { status: 401 });
    const body = text === "" ? {} : JSON.parse(text);
    const [, uuid] = /^publish\/(.+)$/.exec(path) ?? [];
    switch (`${request.method} ${uuid === undefined ? path : "publish/"}`) {
      case "POST code":
        this.#code = body.Code;
        return new Response(null, { status: 204 });
      case "POST publish":
        await this.#publish({
          Uuid: crypto.randomUUID(),
          Code: this.#code,
          Note: body.Note ?? "",
          // Each a day after the one before.
          DateReleased: new Date(86_400_000 * this.releases.length)
            .toISOString(),
          Status: 0,
          Deleted: false,
        });
        return new Response(null, { status: 204 });
      case "POST publish/": {
        const release = this.releases.find(({ Uuid }) => Uuid === uuid);
        if (release === undefined) return new Response(null, { status: 404 });
        await this.#publish(release);
        return new Response(null, { status: 204 });
      }
    }
    // A script's own key reaches no further.
    if (!isAccount) return new Response(null, { status: 403 });
    switch (`${request.method} ${path}`) {
      case "PUT secrets":
        this.secrets.set(body.Name, body.Secret);
        return Response.json({ Name: body.Name });
      case "GET releases":
        return Response.json({ Items: this.releases });
    }
    return new Response(null, { status: 405 });
  }

  /** The edge runs it, after a while. */
  async #publish(release: Release): Promise<void> {
    for (const other of this.releases) other.Status = 0;
    release.Status = 1;
    if (!this.releases.includes(release)) this.releases.unshift(release);
    const before = this.#handler;
    const after = await load(release.Code);
    let behind = this.requestsBehind;
    this.#handler = (request) => (behind-- > 0 ? before : after)(request);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#api.shutdown(), this.#edge.shutdown()]);
  }
}

/** Runs a script in this process, and takes what it serves. */
async function load(code: string): Promise<Handler> {
  const folder = await Deno.makeTempDir();
  const file = `${folder}/script.js`;
  await Deno.writeTextFile(file, code);
  const served = Promise.withResolvers<Handler>();
  Object.assign(globalThis, { Bunny: { v1: { serve: served.resolve } } });
  try {
    await import(`file://${file}`);
    return await served.promise;
  } finally {
    Reflect.deleteProperty(globalThis, "Bunny");
    await Deno.remove(folder, { recursive: true });
  }
}
