/**
 * Ring 3. Small tables for the tests of walks.
 *
 * @module
 */

import { SCHEMA } from "./chain.ts";
import { type RawSchema, type Servers, Stack } from "./stack.ts";

/** A table that schema.json lists later. */
export const LATE = {
  key: "id",
  columns: { id: "INTEGER", note: "TEXT" },
  indexes: [],
};
/** The tables of the chain's schema, and the late one. */
export const SETUP = `
  create table item (id bigint primary key, name text, size numeric);
  create table part (item bigint, code text, note text, primary key (item, code));
  create table late (id bigint primary key, note text);
`;
/** A few rows in each. */
const ROWS = `
  insert into item select i, 'item ' || i, i from generate_series(1, 50) i;
  insert into part select i, 'code ' || i, 'note' from generate_series(1, 50) i;
  insert into late select i, 'late ' || i from generate_series(1, 50) i;
`;

/** What differs from the default: few rows in the tables above. */
export interface WalkOptions {
  readonly schema?: RawSchema;
  readonly setup?: string;
  readonly walks?: boolean;
}

/** A stack that walks by itself by default and does not scrub. */
export async function startWalk(
  servers: Servers,
  options: WalkOptions = {},
): Promise<Stack> {
  const stack = await Stack.start(servers, {
    schema: options.schema ?? SCHEMA,
    setup: options.setup ?? SETUP + ROWS,
    walks: options.walks ?? true,
  });
  await stack.sql`select libsql_sync.scrub(0)`;
  return stack;
}
