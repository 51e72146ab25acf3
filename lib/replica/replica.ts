/**
 * Ring 1. The replica: a libSQL database, reached by HTTP.
 *
 * Promise: every change is one write batch that begins with a move of the
 * chain; it is applied whole, or not at all.
 *
 * @module
 */

import type { BatchHead, Keys } from "../chain/claim.ts";
import type { Walked } from "../chain/page.ts";
import type { ReplicaRow } from "../chain/row.ts";
import { namesIn, type Place, type WalkMove } from "../chain/walk_place.ts";
import { fromHex } from "../bytes.ts";
import { SyncError } from "../errors.ts";
import type { Step } from "../plan/step.ts";
import { failureOf, moved, translate } from "./replica_error.ts";
import {
  countStatement,
  indexStatements,
  INSPECT,
  LAYOUT,
  type Present,
} from "./layout.ts";
import {
  ABORT,
  adoptStatements,
  alterStatements,
  bootstrapStatements,
  DEPENDENTS,
  indexedStatement,
  INDEXES,
  PROBE,
  stepStatement,
  walkedStatement,
} from "./moves.ts";
import { readRow } from "./read_row.ts";
import { bare, type Database, quote, type Statement } from "./sql.ts";
import { stepToStatement } from "./statements.ts";
import {
  brokenStatement,
  comparedStatement,
  keysStatement,
} from "./walk_statements.ts";
import { indexName, type Schema } from "../schema.ts";

/** What came of a batch. */
export interface Applied {
  /** Where the replica stands now. */
  readonly row: ReplicaRow;
  /** What the walk found so far in the table of the batch's page. */
  readonly walked: Walked | null;
}

/** The verbs of the replica. Each throws a SyncError; its code decides what a flow does next. */
export interface Replica {
  /** Asks the primary where it stands; null if there is no replica yet. */
  probe(): Promise<ReplicaRow | null>;
  /** Starts a replica; a row that is there is never replaced. */
  bootstrap(options: { epoch: string; wipe: boolean }): Promise<ReplicaRow>;
  /** Follows a new epoch, with every row gone when it wipes. */
  adopt(
    options: { epoch: string; from: string; wipe: boolean },
  ): Promise<ReplicaRow>;
  /** Brings the schema up to the worker's. */
  alter(options: { from: string }): Promise<ReplicaRow>;
  /** Applies a batch: the move and its steps. */
  apply(
    batch: BatchHead,
    steps: readonly Step[],
    options: { parked: number; walk: { before: WalkMove; after: WalkMove } },
  ): Promise<Applied>;
  /** The next keys of a table, in the replica's order, from its primary. */
  keys(
    place: Place,
    options: {
      keysMax: number;
      rebuilding: readonly string[];
      /** The walk that counts what it had to delete: rows whose key is not text. */
      walkGen: number;
    },
  ): Promise<Keys>;
  /** How many rows a table has, where a walk found every row of the source in it;
   * else null. */
  count(table: string, walkGen: number): Promise<number | null>;
  /** Whether the replica's tables are those of this worker's schema. */
  hasSchema(row: ReplicaRow): boolean;
  /** Builds the indexes a table lacks, each in a transaction of its own; null
   * where it has more rows than `rowsMax`, or may not go on. */
  buildIndexes(
    table: string,
    rowsMax: number,
    mayGoOn?: () => boolean,
  ): Promise<ReplicaRow | null>;
  /** What a walk found so far, by table. */
  walked(walkGen: number): Promise<Walked[]>;
  /** Which of these steps the replica refuses first, if any; nothing is kept. */
  refusedOf(
    steps: readonly Step[],
    rebuilding: readonly string[],
  ): Promise<number | null>;
  /** Which step `apply` was refused for, and SQLite's code; null when it was none. */
  refusedStep(error: SyncError): { step: number; code: string } | null;
}

/**
 * Speaks to a replica.
 *
 * @param database The open database; its fetch has a timeout.
 * @param options The worker's schema and its hash.
 * @returns The replica.
 */
export function createReplica(
  database: Database,
  options: { schema: Schema; schemaHash: string },
): Replica {
  const { schema, schemaHash } = options;
  const rowOf = (row: unknown) => readRow(row, { schema, schemaHash });
  const write = async (statements: readonly Statement[]) => {
    try {
      return await database.write(statements);
    } catch (error) {
      throw translate(error);
    }
  };
  const move = async (statements: readonly Statement[]) => {
    try {
      return rowOf((await write(statements)).at(-1)?.rows[0]);
    } catch (error) {
      // A move that breaks a constraint met another state than it was made for.
      if (error instanceof SyncError && error.code === "replica_refused") {
        throw moved(error);
      }
      throw error;
    }
  };
  const inspect = async (): Promise<Present> => {
    const [result, layout] = await write([INSPECT, bare(`SELECT ${LAYOUT}`)]);
    const columns = new Map<string, { type: string; isKey: boolean }>();
    const indexes = new Set<string>();
    for (const row of result!.rows) {
      if (row[0] === null) indexes.add(String(row[1]));
      else {
        const found = { type: String(row[2]), isKey: row[3] !== 0 };
        columns.set(`${row[0]}\u0000${row[1]}`, found);
      }
    }
    return { layout: String(layout!.rows[0]![0]), columns, indexes };
  };
  // SQLite renames no table while a view or trigger names one that is not there.
  const dependents = async () => {
    const [found] = await write([DEPENDENTS]);
    const made = found!.rows.map((row) => {
      const [type, name, sql] = Array.from(row as ArrayLike<unknown>, String);
      return { drop: `DROP ${type} IF EXISTS ${quote(name!)}`, create: sql! };
    });
    return {
      drops: made.map(({ drop }) => bare(drop)),
      creates: made.map(({ create }) => bare(create)),
    };
  };
  const tableOf = (name: string) =>
    schema.tables.find((table) => table.name === name)!;

  const keys: Replica["keys"] = async (place, options) => {
    const { after } = place;
    const { keysMax, rebuilding, walkGen } = options;
    const table = tableOf(place.table);
    // The probe makes it a write: a read may come from a stale replica.
    const [, result] = await write([
      PROBE,
      keysStatement(table, { after, keysMax, rebuilding }),
    ]);
    const rows = result!.rows.map((row) =>
      Array.from(row as ArrayLike<unknown>, String)
    );
    const hex = rows.map((row) => row.slice(0, -1));
    const texts = hex.map((key) => key.map(textOf));
    const isText = (key: (string | null)[]): key is string[] =>
      !key.includes(null);
    if (!texts.every(isText)) {
      const broken = hex.filter((_, at) => !isText(texts[at]!));
      await write([
        brokenStatement(table, broken, rebuilding),
        stepToStatement({
          kind: "tally",
          walk: { walkGen, table },
          found: "ghosts",
          rows: 0,
          ended: false,
          failed: null,
        }),
      ]);
      return await keys(place, options);
    }
    // Fewer than there would be: the rest is too large for one answer.
    const isWhole = rows.length === Number(rows[0]?.at(-1) ?? 0);
    return {
      keys: texts,
      after: texts.at(-1) ?? after,
      last: isWhole && texts.length < keysMax,
    };
  };

  return {
    async probe() {
      try {
        const result = await database.execute(PROBE);
        return result.rows.length === 0 ? null : rowOf(result.rows[0]);
      } catch (error) {
        const translated = translate(error);
        if (translated.code === "replica_schema") return null;
        throw translated;
      }
    },
    async bootstrap({ epoch, wipe }) {
      const present = await inspect();
      return await move(
        bootstrapStatements(schema, { epoch, schemaHash, wipe, present }),
      );
    },
    async adopt({ epoch, from, wipe }) {
      return await move(
        adoptStatements(schema, { epoch, from, schemaHash, wipe }),
      );
    },
    async alter({ from }) {
      const present = await inspect();
      return await move(alterStatements(schema, { from, schemaHash, present }));
    },
    async apply(batch, steps, { parked, walk }) {
      const deadLetters = batch.deadLetters + parked;
      const rebuilding = namesIn(walk.before.rebuilding);
      const isSwap = steps.some(({ kind }) => kind === "rename");
      const others = isSwap ? await dependents() : { drops: [], creates: [] };
      const statements = steps.flatMap((step) => [
        ...(step.kind === "drop" ? others.drops : []),
        stepToStatement(step, rebuilding),
        ...(step.kind === "rename" ? others.creates : []),
      ]);
      try {
        const results = await write([
          stepStatement({ ...batch, schemaHash, deadLetters }, walk),
          ...statements,
        ]);
        const tally = steps.at(-1)?.kind === "tally"
          ? results.at(-1)?.rows[0]
          : undefined;
        return {
          row: rowOf(results[0]?.rows[0]),
          walked: tally === undefined ? null : walkedOf(tally),
        };
      } catch (error) {
        if (
          error instanceof SyncError && error.code === "replica_refused" &&
          failureOf(error)?.statement === 0
        ) throw moved(error);
        throw error;
      }
    },
    keys,
    async count(name, walkGen) {
      // The probe makes it a write: a read may come from a stale replica.
      const [, result] = await write([
        PROBE,
        comparedStatement(tableOf(name), walkGen),
      ]);
      const count = result!.rows[0]?.[0];
      return count === undefined ? null : Number(count);
    },
    hasSchema(row) {
      return row.schema_hash === schemaHash;
    },
    async buildIndexes(name, rowsMax, mayGoOn = () => true) {
      const table = tableOf(name);
      const [found, counted] = await write([
        INDEXES,
        countStatement(table, rowsMax + 1),
      ]);
      const there = new Set(found!.rows.map((row) => String(row[0])));
      const missing = table.indexes.filter((columns) =>
        !there.has(indexName(name, columns))
      );
      if (missing.length > 0 && Number(counted!.rows[0]![0]) > rowsMax) {
        return null;
      }
      for (const statement of indexStatements({ ...table, indexes: missing })) {
        if (!mayGoOn()) return null;
        await write([statement]);
      }
      return await move([indexedStatement(table)]);
    },
    async walked(walkGen) {
      const [result] = await write([walkedStatement(walkGen)]);
      return result!.rows.map(walkedOf);
    },
    async refusedOf(steps, rebuilding) {
      const statements = steps.map((step) => stepToStatement(step, rebuilding));
      try {
        await write([...statements, ABORT]);
      } catch (error) {
        // The guard itself refuses the last statement.
        const failure = error instanceof SyncError &&
            /^replica_(refused|moved)$/.test(error.code)
          ? failureOf(error)
          : null;
        if (failure === null) throw error;
        return failure.statement < statements.length ? failure.statement : null;
      }
      throw new Error("a batch that must fail was applied");
    },
    refusedStep(error) {
      const failure = failureOf(error);
      return failure === null || failure.statement === 0
        ? null
        : { step: failure.statement - 1, code: failure.code };
    },
  };
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text whose bytes came as hex; null if they are not UTF-8. */
function textOf(hex: string): string | null {
  try {
    return decoder.decode(fromHex(hex));
  } catch {
    return null;
  }
}

/** What a walk found in a table. */
function walkedOf(row: unknown): Walked {
  const found = row as Record<string, unknown>;
  return {
    walkGen: Number(found.walk_gen),
    table: String(found.table_name),
    rows: Number(found.rows),
    differing: Number(found.differing),
    ghosts: Number(found.ghosts),
    ended: Number(found.ended) === 1,
    failed: found.failed === null ? null : String(found.failed),
  };
}
