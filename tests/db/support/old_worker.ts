/**
 * Ring 3. A worker of release 0.1.0, as far as an upgrade meets what it left: it
 * claims batches of values from that release's functions, and applies them.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type postgres from "postgres";
import type { Batch } from "../../../lib/chain/claim.ts";
import type { ReplicaRow } from "../../../lib/chain/row.ts";
import { createPlanner } from "../../../lib/plan/plan.ts";
import type { Replica } from "../../../lib/replica/replica.ts";
import { parseSchema } from "../../../lib/schema.ts";
import schemaJson from "../../../schema.json" with { type: "json" };
import { walkAfterBatch } from "../../contract/source.ts";

/** The contract of that release. */
const VERSION = 4;

/** What that release's claim() answers. */
interface Answer {
  readonly do: string;
  readonly epoch: string;
  readonly position: number;
  readonly batch: string;
  readonly prev: string;
  readonly drained: boolean;
  readonly snapshot: string;
  readonly source_time: string;
  readonly dead_letters: number;
  readonly reopen: boolean;
  /** Each its id and {"table", "columns", "rows" | "updates"}. */
  readonly messages: readonly [id: string, message: {
    readonly table: string;
    readonly columns: readonly string[];
    readonly rows?: readonly (readonly (string | null)[])[];
    readonly updates?: readonly (readonly (string | null)[])[];
  }][];
}

/** A worker of release 0.1.0, driven by hand. */
export class OldWorker {
  readonly #lease = crypto.randomUUID();
  readonly #plan = createPlanner(parseSchema(schemaJson));

  private constructor(
    private readonly sql: postgres.Sql,
    private readonly replica: Replica,
    private readonly hash: string,
  ) {}

  /** Takes the lease and starts the replica. */
  static async start(
    sql: postgres.Sql,
    replica: Replica,
  ): Promise<OldWorker> {
    const [schema] = await sql`select hash from libsql_sync.schemas`;
    const worker = new OldWorker(sql, replica, schema!.hash);
    const [leased] = await sql`select libsql_sync.lease(${
      JSON.stringify({ version: VERSION, lease: worker.#lease, seconds: 60 })
    }::text::json) as answer`;
    assertEquals(leased!.answer.do, "granted");
    const { do: verb, epoch } = await worker.#claim(null);
    assertEquals(verb, "bootstrap");
    await replica.bootstrap({ epoch, wipe: false });
    return worker;
  }

  async #claim(row: ReplicaRow | null): Promise<Answer> {
    const [claimed] = await this.sql`select libsql_sync.claim(${
      JSON.stringify({
        lease: this.#lease,
        seconds: 60,
        schema: this.hash,
        row,
        messages_max: 100,
        bytes_max: 1_000_000,
        walked: [],
      })
    }::text::json) as pieces`;
    return JSON.parse(claimed!.pieces.join(""));
  }

  /** Claims what must be a batch. */
  async batch(): Promise<Batch> {
    const answer = await this.#claim(await this.replica.probe());
    assertEquals(answer.do, "batch", JSON.stringify(answer));
    const { source_time, dead_letters, messages, ...same } = answer;
    return {
      ...same,
      do: "batch",
      sourceTime: source_time,
      deadLetters: dead_letters,
      messages: messages.length,
      tables: messages.map(([, { table, columns, rows, updates }]) => ({
        table,
        truncate: false,
        columns,
        rows: rows ?? updates!,
        gone: [],
        broken: [],
      })),
      unusable: [],
      parked: [],
      page: null,
    };
  }

  /** Applies a batch. */
  async apply(batch: Batch): Promise<void> {
    const before = (await this.replica.probe())!;
    const { steps } = this.#plan(batch.tables, batch.unusable);
    await this.replica.apply(batch, steps, {
      parked: 0,
      walk: { before, after: walkAfterBatch(before, batch) },
    });
  }
}
