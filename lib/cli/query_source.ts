/**
 * Ring 3. Queries to the source, for the commands.
 *
 * Promise: every query ends within a limit, and a failure is one sentence that
 * holds no value and no password.
 *
 * @module
 */

import postgres from "postgres";
import { CommandError } from "./command.ts";
import { withLimit } from "./wait.ts";
import { completePostgresUrl } from "../postgres/url.ts";

/** Runs one query. */
export type Query = <T>(text: string, values?: (string | null)[]) => Promise<
  T[]
>;

/** Longer than any function of libsql_sync takes. */
const QUERY_MS_MAX = 60_000;
const CONNECT_S_MAX = 10;

/** A connection to PostgreSQL. */
export interface Connection {
  /** Runs one query; fails as the driver does. */
  readonly query: Query;
  /** Closes the connection. */
  readonly close: () => Promise<void>;
}

/**
 * Opens a connection that suits any pooler.
 *
 * @param pgmqUrl The connection string.
 * @returns The connection; it connects with its first query.
 * @throws {Error} If the driver cannot use the connection string; its message
 * may show the password.
 */
export function openSource(pgmqUrl: string): Connection {
  const sql = postgres(completePostgresUrl(pgmqUrl), {
    max: 1,
    prepare: false,
    fetch_types: false,
    connect_timeout: CONNECT_S_MAX,
    onnotice: () => {},
  });
  return {
    query: async <T>(text: string, values: (string | null)[] = []) =>
      [...await sql.unsafe(text, values)] as T[],
    close: () => sql.end({ timeout: 1 }),
  };
}

/**
 * Connects to the source while a function runs.
 *
 * @param pgmqUrl The connection string.
 * @param run The function; its queries fail with a CommandError.
 * @returns What it returned.
 * @throws {CommandError} If PostgreSQL cannot be reached, or refuses.
 */
export async function withSource<T>(
  pgmqUrl: string,
  run: (query: Query) => Promise<T>,
): Promise<T> {
  const source = openSource(pgmqUrl);
  const query: Query = async (text, values) => {
    try {
      return await withLimit(source.query(text, values), {
        limitMs: QUERY_MS_MAX,
      });
    } catch (error) {
      throw new CommandError(explainFailure(error), { cause: error });
    }
  };
  try {
    return await run(query);
  } finally {
    await source.close();
  }
}

/** Explains an error of PostgreSQL or of the driver, without a value. */
function explainFailure(error: unknown): string {
  const { code, message, name } = error as {
    code?: unknown;
    message?: string;
    name?: string;
  };
  const state = name === "TimeoutError"
    ? `no answer in ${QUERY_MS_MAX / 1000} s`
    : typeof code === "string"
    ? code
    : "no connection";
  const said = `Cannot query PostgreSQL: it answered SQLSTATE ${state}`;
  if (/^(42883|3F000|42P01|42703)$/.test(state)) {
    return `${said}; run the migration in supabase/migrations, or use newer commands`;
  }
  if (state === "42501") {
    return `${said}; PGMQ_URL must name the role that ran the migration`;
  }
  if (/^(28|3D)/.test(state)) {
    return `${said}; check user, password and database in PGMQ_URL`;
  }
  // Only libsql_sync's functions raise P0001, and their sentences hold no value.
  if (state === "P0001") return message ?? said;
  if (/^[0-9A-Z]{5}$/.test(state)) return said;
  return `Cannot reach PostgreSQL: expected an answer, found ${state}; check PGMQ_URL and that the database accepts connections`;
}
