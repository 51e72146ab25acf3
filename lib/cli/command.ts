/**
 * Ring 3. What the commands share: flags, settings, connections, exit codes.
 *
 * Promise: 0 says fine, 1 drift or failure, 2 a wrong call; and whatever goes
 * wrong is told in one sentence that holds no secret.
 *
 * @module
 */

import postgres from "postgres";
import { oneLine } from "./table.ts";
import { parseConfig } from "../config/config.ts";
import { SyncError } from "../errors.ts";
import { sign } from "../http/auth.ts";
import { completePostgresUrl } from "../postgres/url.ts";
import { parseSchema, type Schema, schemaHash } from "../schema.ts";

/** Where the settings come from, the same in every usage text. */
export const SETTINGS = `Settings are read from the environment:
  PGMQ_URL           PostgreSQL, as the role that ran the migration
  WORKER_URL         the worker's address, such as https://name.bunny.run
  WEBHOOK_SIGNATURE  the secret the worker expects
or from a file: deno task --env-file=<file> `;

/** A setting some command may need. */
export type SettingName =
  | "PGMQ_URL"
  | "WORKER_URL"
  | "WEBHOOK_SIGNATURE"
  | "NUKE_SIGNATURE";

/** What follows a command's name. */
export interface Call {
  /** The flags given; a switch is "". */
  readonly flags: Readonly<Record<string, string>>;
  /** The words that are no flags. */
  readonly words: readonly string[];
}

/** A wrong call: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Something that failed, told by its message alone: exit code 1. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}

/**
 * Reads what follows a command's name.
 *
 * @param args The arguments.
 * @param allowed The flags: a switch, or one that takes a text.
 * @param options How many words may stand besides; none unless told.
 * @returns The flags and words.
 * @throws {UsageError} For anything else.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseCall(["--table", "apps", "--json"], { table: "text", json: "switch" }), {
 *   flags: { table: "apps", json: "" },
 *   words: [],
 * });
 * ```
 */
export function parseCall(
  args: readonly string[],
  allowed: Readonly<Record<string, "switch" | "text">>,
  options: { wordsMax?: number } = {},
): Call {
  const flags: Record<string, string> = {};
  const words: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [, name, given] = /^--([^=]+)(?:=(.*))?$/s.exec(args[i]!) ?? [];
    if (name === undefined) {
      if (args[i]!.startsWith("-")) {
        throw new UsageError(`unknown flag ${oneLine(args[i]!, 40)}`);
      }
      words.push(args[i]!);
      continue;
    }
    if (!Object.hasOwn(allowed, name)) {
      throw new UsageError(`unknown flag --${oneLine(name, 40)}`);
    }
    if (name in flags) throw new UsageError(`--${name} is given twice`);
    if (allowed[name] === "switch") {
      if (given !== undefined) throw new UsageError(`--${name} takes no value`);
      flags[name] = "";
      continue;
    }
    const value = given ?? args[++i];
    if (value === undefined || value === "" || value.startsWith("--")) {
      throw new UsageError(`--${name} needs a value`);
    }
    flags[name] = value;
  }
  if (words.length > (options.wordsMax ?? 0)) {
    const word = oneLine(words[options.wordsMax ?? 0]!, 40);
    throw new UsageError(`unexpected argument ${word}`);
  }
  return { flags, words };
}

/** The settings a command asked for; those it did not are empty. */
export interface Settings {
  readonly pgmqUrl: string;
  readonly workerUrl: string;
  /** What a request is signed with. */
  readonly secrets: readonly string[];
}

/**
 * Reads the settings a command needs.
 *
 * @param get Reads one variable of the environment.
 * @param needs Which.
 * @returns The settings, checked as the worker checks its own.
 * @throws {UsageError} All that is missing or malformed, in one message.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const get = (name: string) => ({ WORKER_URL: "https://x.example/" })[name];
 * assertEquals(readSettings(get, ["WORKER_URL"]).workerUrl, "https://x.example");
 * ```
 */
export function readSettings(
  get: (name: string) => string | undefined,
  needs: readonly SettingName[],
): Settings {
  const isNeeded = (name: string) => needs.includes(name as SettingName);
  const problems: string[] = [];
  let config;
  try {
    const isRead = (name: string) =>
      isNeeded(name) || isNeeded("PGMQ_URL") && /^PGMQ_/.test(name);
    config = parseConfig((name) => isRead(name) ? get(name) : UNUSED[name]);
  } catch (error) {
    if (!(error instanceof SyncError)) throw error;
    problems.push(error.message.replace("Cannot use the settings: ", ""));
  }
  let workerUrl = "";
  if (isNeeded("WORKER_URL")) {
    workerUrl = (get("WORKER_URL") ?? "").trim().replace(/\/+$/, "");
    const url = URL.parse(workerUrl);
    if (
      url === null || !/^https?:$/.test(url.protocol) || url.pathname !== "/" ||
      url.search + url.hash + url.username + url.password !== ""
    ) {
      problems.push(
        `WORKER_URL must be https:// or http:// and a host, without a path: found ${
          workerUrl === "" ? "nothing" : "something else"
        }; set it to the worker's address.`,
      );
    } else workerUrl = url.origin;
  }
  if (isNeeded("PGMQ_URL") && /^https?:/.test(config?.pgmqUrl ?? "")) {
    problems.push(
      "PGMQ_URL must be postgres:// here: found https://, which is for the worker alone; set it to the connection string of the role that ran the migration.",
    );
  }
  if (problems.length > 0) {
    throw new UsageError(`Cannot use the settings: ${problems.join(" ")}`);
  }
  return {
    pgmqUrl: isNeeded("PGMQ_URL") ? config!.pgmqUrl : "",
    workerUrl,
    secrets: config!.nukeSecrets ??
      (isNeeded("WEBHOOK_SIGNATURE") ? config!.webhookSecrets : []),
  };
}

/** What stands for settings that a command has no use for. */
const UNUSED: Record<string, string> = {
  LIBSQL_URL: "http://unused",
  PGMQ_URL: "postgres://unused",
  WEBHOOK_SIGNATURE: "unused",
};

/** A query to the source that tells its failure in a sentence. */
export type Query = <T>(text: string, values?: (string | null)[]) => Promise<
  T[]
>;

/** Longer than any of the functions takes. */
const QUERY_TIMEOUT_MS = 60_000;
const CONNECT_TIMEOUT_S = 10;

/**
 * Connects to the source for as long as something runs.
 *
 * @param pgmqUrl The connection string.
 * @param run What to run.
 * @returns What it returned.
 * @throws {CommandError} Where PostgreSQL cannot be reached or refuses.
 */
export async function withSource<T>(
  pgmqUrl: string,
  run: (query: Query) => Promise<T>,
): Promise<T> {
  const sql = postgres(completePostgresUrl(pgmqUrl), {
    max: 1,
    prepare: false,
    fetch_types: false,
    connect_timeout: CONNECT_TIMEOUT_S,
    onnotice: () => {},
  });
  const query = async <R>(text: string, values: (string | null)[] = []) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject({ code: `no answer in ${QUERY_TIMEOUT_MS / 1000} s` }),
        QUERY_TIMEOUT_MS,
      );
    });
    const answer = sql.unsafe(text, values);
    try {
      return [...await Promise.race([answer, late])] as R[];
    } catch (error) {
      throw new CommandError(explainSource(error), { cause: error });
    } finally {
      clearTimeout(timer);
    }
  };
  try {
    return await run(query);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** What PostgreSQL or the driver said, without a value. */
function explainSource(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: string };
  const state = typeof code === "string" ? code : "no connection";
  const said = `Cannot ask PostgreSQL: it answered SQLSTATE ${state}`;
  if (/^(42883|3F000|42P01|42703)$/.test(state)) {
    return `${said}; run the migration in supabase/migrations, or a newer one of these commands`;
  }
  if (state === "42501") {
    return `${said}; PGMQ_URL must name the role that ran the migration`;
  }
  if (/^(28|3D)/.test(state)) {
    return `${said}; check user, password and database in PGMQ_URL`;
  }
  // Only our own functions raise P0001, and their sentences hold no value.
  if (state === "P0001") return message ?? said;
  if (/^[0-9A-Z]{5}$/.test(state)) return said;
  return `Cannot reach PostgreSQL: expected an answer, found ${state}; check PGMQ_URL and that the database accepts connections`;
}

/** An answer of the worker; an empty body where it was no JSON. */
export interface WorkerAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Record<string, unknown>;
}

/** The worker ends within its 8 s and its last step. */
const WORKER_TIMEOUT_MS = 60_000;

/**
 * Sends a signed POST to the worker.
 *
 * @param settings Its address and secrets: each makes a signature, so that one
 * that both sides have is among them while it is changed.
 * @param path The path with its query.
 * @returns The answer, whatever its status.
 * @throws {CommandError} Where there is none.
 */
export function post(
  settings: Pick<Settings, "workerUrl" | "secrets">,
  path: string,
): Promise<WorkerAnswer> {
  return ask(settings, { method: "POST", path });
}

/**
 * Sends a signed request to the worker.
 *
 * @param settings Its address and secrets.
 * @param request The method, and the path with its query.
 * @returns The answer, whatever its status.
 * @throws {CommandError} Where there is none.
 */
export async function ask(
  settings: Pick<Settings, "workerUrl" | "secrets">,
  { method, path }: { method: "GET" | "POST"; path: string },
): Promise<WorkerAnswer> {
  const url = new URL(settings.workerUrl + path);
  const signature = await sign(settings.secrets, {
    method,
    path: url.pathname + url.search,
    body: new Uint8Array(),
  }, Date.now());
  try {
    const response = await fetch(url, {
      method,
      headers: { "x-webhook-signature": signature },
      redirect: "manual",
      signal: AbortSignal.timeout(WORKER_TIMEOUT_MS),
    });
    const { status, headers } = response;
    const text = await response.text();
    return { status, headers, body: objectOf(text) };
  } catch (error) {
    const found = (error as Error).name === "TimeoutError"
      ? `none in ${WORKER_TIMEOUT_MS / 1000} s`
      : "no connection";
    throw new CommandError(
      `Cannot reach the worker: expected an answer of ${url.host}, found ${found}; check WORKER_URL`,
      { cause: error },
    );
  }
}

/** A JSON object; an empty one where something else stands there. */
function objectOf(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}

/**
 * Says what a refusal of the worker means.
 *
 * @param answer The answer.
 * @returns A sentence with the worker's code and words.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(
 *   describeRefusal({ status: 401, headers: new Headers(), body: { error: "unauthorized", message: "No." } }),
 *   "The worker answered 401 unauthorized: No. WEBHOOK_SIGNATURE here must be the one it has.",
 * );
 * ```
 */
export function describeRefusal({ status, body }: WorkerAnswer): string {
  const { error, message } = body;
  if (typeof error !== "string" || typeof message !== "string") {
    return `Cannot use the worker: expected its answer, found HTTP ${status} of something else; check WORKER_URL`;
  }
  const advice = status === 401
    ? " WEBHOOK_SIGNATURE here must be the one it has."
    : status === 404
    ? " The worker there is older than this command."
    : "";
  return `The worker answered ${status} ${oneLine(error, 40)}: ${
    oneLine(message, 600)
  }${advice}`;
}

/**
 * Reads schema.json of this folder.
 *
 * @returns The schema and its hash.
 * @throws {CommandError} Where it cannot be used.
 */
export async function readSchema(): Promise<{ schema: Schema; hash: string }> {
  try {
    const file = new URL("../../schema.json", import.meta.url);
    const schema = parseSchema(JSON.parse(await Deno.readTextFile(file)));
    return { schema, hash: await schemaHash(schema) };
  } catch (error) {
    throw new CommandError(
      error instanceof SyncError
        ? error.message
        : "Cannot read schema.json: expected a JSON file beside deno.json",
      { cause: error },
    );
  }
}

/** A command. */
export interface Command {
  /** What --help prints. */
  readonly usage: string;
  /** Does it; resolves to the exit code. */
  readonly run: (args: readonly string[]) => Promise<number>;
}

/**
 * Runs a command as a process does.
 *
 * @param command The command.
 * @param args What follows its name.
 * @returns The exit code.
 */
export async function runCommand(
  command: Command,
  args: readonly string[],
): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    console.log(command.usage);
    return 0;
  }
  try {
    return await command.run(args);
  } catch (error) {
    if (error instanceof UsageError) {
      console.error(`${error.message}\n\n${command.usage}`);
      return 2;
    }
    if (!(error instanceof CommandError)) throw error;
    console.error(error.message);
    return 1;
  }
}

/** Prints one value as JSON. */
export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, null, 2));
}
