/**
 * Ring 3. A stand-in for PostgREST behind Supabase's gateway, which cannot be
 * had from npm: calls of functions, and nothing else of it.
 *
 * What it does is what their documentation says: an `apikey` for the gateway; a
 * JWT (HS256) whose role the transaction switches to; `content-profile` names
 * one of the exposed schemas; functions are looked up in a cache that is read
 * anew on `notify pgrst, 'reload schema'`; a call is one transaction, with the
 * `statement_timeout` of role authenticator (8 s on Supabase) or of the role;
 * errors are `{code, details, hint, message}` with the status of their SQLSTATE.
 *
 * @module
 */

import postgres from "postgres";
import { hs256 } from "./jwt.ts";
import { fromBase64, toBase64 } from "../bytes.ts";

/** A running stand-in. */
export interface Postgrest extends AsyncDisposable {
  /** Its address, such as PGMQ_URL takes it. */
  readonly url: string;
}

/** What to serve. */
export interface PostgrestOptions {
  /** A connection string of role authenticator. */
  readonly databaseUrl: string;
  /** The key the gateway asks for. */
  readonly apiKey: string;
  /** What tokens are signed with. */
  readonly jwtSecret: string;
  /** The exposed schemas. */
  readonly schemas?: readonly string[];
}

/** Status by the start of the SQLSTATE; the first that fits. */
const STATUS: readonly [state: RegExp, status: number][] = [
  [/^(08|53(?!400))/, 503],
  [/^(0L|0P|28|42501)/, 403],
  [/^(42883|42P01)/, 404],
  [/^(23503|23505)/, 409],
  [/^25006/, 405],
  [/^(09|25|2D|38|39|3B|40|53400|54|55|57|58|F0|HV|XX|P0(?!001))/, 500],
  [/./, 400],
];

/** The code for a database that cannot be reached. */
const LOST = "PGRST000";

/** What is answered instead of a result. */
class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly body: Record<string, unknown>,
  ) {
    super();
  }
}

const refuse = (status: number, code: string, message: string) =>
  new Refusal(status, { code, message, details: null, hint: null });

/**
 * Starts the stand-in on a free port.
 *
 * @param options What to serve.
 * @returns It; the database is asked when the first request comes.
 */
export function startPostgrest(options: PostgrestOptions): Postgrest {
  const schemas = options.schemas ?? ["libsql_sync"];
  let cache: Promise<Set<string>> | null = null;
  const connect = () => {
    cache = null;
    const made = postgres(options.databaseUrl, {
      max: 10,
      idle_timeout: 5,
      onnotice: () => {},
    });
    // A connection that cannot listen now cannot be notified either.
    made.listen("pgrst", () => {
      cache = null;
    }).catch(() => {});
    return made;
  };
  let sql = connect();
  /** After a lost connection the driver waits longer and longer, and repeats the
   * error of that time: PostgREST does not. */
  const connectAgain = () => {
    sql.end({ timeout: 0 }).catch(() => {});
    sql = connect();
  };
  const functions = () =>
    cache ??= sql`
      select n.nspname || '.' || p.proname as name from pg_proc p
      join pg_namespace n on n.oid = p.pronamespace
      where n.nspname = any (${[
      ...schemas,
    ]}) and p.proargnames = array['request']`
      .then((rows) => new Set(rows.map(({ name }) => String(name))));

  const answer = async (request: Request): Promise<Response> => {
    if (request.headers.get("apikey") !== options.apiKey) {
      const message = "Invalid API key";
      throw new Refusal(401, { message });
    }
    const { pathname } = new URL(request.url);
    const name = /^\/rest\/v1\/rpc\/(\w+)$/.exec(pathname)?.[1];
    if (name === undefined) throw refuse(404, "PGRST125", "Invalid path");
    if (request.method !== "POST") {
      throw refuse(405, "PGRST117", "Unsupported HTTP method");
    }
    const claims = await verify(
      request.headers.get("authorization") ?? "",
      options.jwtSecret,
    );
    const schema = request.headers.get("content-profile") ?? schemas[0]!;
    if (!schemas.includes(schema)) {
      const list = schemas.join(", ");
      throw refuse(406, "PGRST106", `Only these schemas are exposed: ${list}`);
    }
    if (!(await functions()).has(`${schema}.${name}`)) {
      const message = `Could not find ${schema}.${name} in the schema cache`;
      throw refuse(404, "PGRST202", message);
    }
    const body = await request.text();
    const settings = await sql`
      select split_part(c, '=', 1) as name, substr(c, strpos(c, '=') + 1) as value
      from pg_roles r cross join unnest(r.rolconfig) c where r.rolname = ${claims.role}`;
    const local = Object.entries<string>({
      role: claims.role,
      search_path: `"${schema}", "public"`,
      "request.jwt.claims": JSON.stringify(claims),
      ...Object.fromEntries(settings.map(({ name, value }) => [name, value])),
    });
    // Statements sent together are one transaction.
    const results = await sql.unsafe(
      [
        ...local.map(([name, value]) =>
          `select set_config(${text(name)}, ${text(value)}, true)`
        ),
        `select to_json(${schema}.${name}(request => r.request))::text as answer
           from json_to_record(${text(body)}::json) as r (request json)`,
      ].join(";"),
    ).simple();
    const result = String(
      (results.at(-1) as unknown as postgres.Row[])[0]!.answer,
    );
    return new Response(result, {
      headers: { "content-type": "application/json; charset=utf-8" },
    });
  };

  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    async (request) => {
      try {
        return await answer(request);
      } catch (error) {
        const { status, body } = error instanceof Refusal
          ? error
          : refusalOf(error);
        if (/^(PGRST000|57P|08)/.test(String(body.code))) connectAgain();
        return Response.json(body, { status });
      }
    },
  );
  return {
    url: `http://127.0.0.1:${server.addr.port}/rest/v1`,
    async [Symbol.asyncDispose]() {
      await server.shutdown();
      await sql.end({ timeout: 1 });
    },
  };
}

/** A literal that needs no quoting, with any content. */
function text(value: string): string {
  const base64 = toBase64(new TextEncoder().encode(value));
  return `convert_from(decode('${base64}', 'base64'), 'UTF8')`;
}

/** PostgreSQL's error as PostgREST passes it on. */
function refusalOf(error: unknown): Refusal {
  const { code, message, severity, detail, hint } = error as Record<
    string,
    unknown
  >;
  if (severity === undefined) {
    return refuse(503, LOST, "Could not connect with the database");
  }
  const state = String(code);
  return new Refusal(STATUS.find(([states]) => states.test(state))![1], {
    code: state,
    message,
    details: detail ?? null,
    hint: hint ?? null,
  });
}

/** The claims of a bearer's token. */
async function verify(
  header: string,
  secret: string,
): Promise<Record<string, unknown> & { role: string }> {
  const [, head, body, signature] =
    /^Bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/i.exec(header) ?? [];
  if (signature === undefined) {
    throw refuse(401, "PGRST302", "Anonymous access is disabled");
  }
  const expected = await hs256(`${head}.${body}`, secret);
  if (signature !== expected) {
    throw refuse(401, "PGRST301", "No suitable key or wrong key type");
  }
  const claims = JSON.parse(
    new TextDecoder().decode(fromBase64(body!)),
  );
  if (claims.exp !== undefined && claims.exp * 1000 < Date.now()) {
    throw refuse(401, "PGRST303", "JWT expired");
  }
  return claims;
}
