/**
 * Ring 1. A libSQL database, by the Hrana protocol over HTTP.
 *
 * Promise: statements are applied together or not at all, by one request.
 *
 * @module
 */

import {
  BatchCond,
  ClientError,
  openHttp,
  ResponseError,
} from "@libsql/hrana-client";
import type { Database, Result } from "./sql.ts";

/** A database, to be closed at the end. */
export interface OpenDatabase extends Database {
  /** Closes the connection. */
  close(): void;
}

/** What the database or the protocol said; `cause.status` is that of HTTP. */
export class LibsqlError extends Error {
  /** The class, as logs name it. */
  override readonly name = "LibsqlError";
  /**
   * Makes an error.
   *
   * @param message What the database said.
   * @param code SQLite's code, or the name of what went wrong.
   * @param statementIndex The statement of a batch that was refused.
   * @param cause What the protocol's client threw.
   */
  constructor(
    message: string,
    /** SQLite's code, or the name of what went wrong. */
    readonly code: string,
    /** The statement of a batch that it refused. */
    readonly statementIndex?: number,
    cause?: ClientError,
  ) {
    super(message, { cause });
  }
}

/**
 * Opens a database; nothing is sent yet.
 *
 * @param options Its address by HTTP, its token, and what sends a request.
 * @returns The database.
 * @throws {TypeError} The address is none.
 */
export function openLibsql(
  options: {
    url: string;
    authToken: string;
    fetch: (request: Request) => Promise<Response>;
  },
): OpenDatabase {
  const client = openHttp(options.url, options.authToken, options.fetch);
  client.intMode = "number";
  return {
    async execute({ sql, args }) {
      const stream = client.openStream();
      const rows = stream.query([sql, args]).catch(refuse);
      // What was asked for goes with the stream's end: one request.
      stream.closeGracefully();
      return await rows;
    },
    async write(statements) {
      const stream = client.openStream();
      const batch = stream.batch();
      let last = batch.step();
      const begun = last.run("BEGIN IMMEDIATE");
      const results = statements.map(({ sql, args }, index) => {
        const step = batch.step().condition(BatchCond.ok(last));
        last = step;
        return step.query([sql, args])
          .catch((error) => refuse(error, index));
      });
      const commit = batch.step().condition(BatchCond.ok(last));
      const committed = commit.run("COMMIT");
      const undo = batch.step().condition(BatchCond.not(BatchCond.ok(commit)));
      undo.run("ROLLBACK").catch(() => {});
      const done = Promise.all([begun, committed]);
      const answered = Promise.all(results);
      const executed = batch.execute();
      stream.closeGracefully();
      // A request that failed names no step.
      const [answers, steps] = await Promise.all([answered, done, executed])
        .catch(refuse);
      if ([...answers, ...steps].includes(undefined)) {
        throw new LibsqlError(
          "expected an answer to each statement, found fewer",
          "TRANSACTION_CLOSED",
        );
      }
      return answers as Result[];
    },
    close: () => client.close(),
  };
}

/** Says in one form what the client says in several. */
function refuse(error: unknown, statementIndex?: number): never {
  if (!(error instanceof ClientError)) throw error;
  const code = error instanceof ResponseError ? error.code : undefined;
  throw new LibsqlError(
    error.message,
    code ?? error.name,
    statementIndex,
    error,
  );
}
