/**
 * What every source must do, in memory or in PostgreSQL: the functions of
 * schema libsql_sync as their callers see them.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { Batch, Carrier, Claim, Settled } from "../../lib/chain/claim.ts";
import type { ReplicaRow } from "../../lib/chain/row.ts";
import {
  parsePlace,
  walkAfter,
  type WalkMove,
} from "../../lib/chain/walk_place.ts";
import { parseSchema, type Schema, schemaHash } from "../../lib/schema.ts";
import { createSource, type Source } from "../../lib/source/source.ts";
import type { Fields } from "../sim/source_state.ts";
import type { Message, UserStatement } from "../sim/tables.ts";

/** A source with its users, to be tested. */
export interface SourceUnderTest {
  readonly carrier: Carrier;
  /** Makes a statement, in a transaction that is open where one is named; false
   * where it would wait. */
  run(statement: UserStatement, session?: number): Promise<boolean>;
  begin(session: number): Promise<void>;
  end(session: number, how: "commit" | "rollback"): Promise<void>;
  /** Puts a message into the queue. */
  send(message: Message): Promise<void>;
  /** Puts a schema in force; false where somebody is writing by the old one. */
  configure(schema: Schema, hash: string): Promise<boolean>;
  set(settings: Settings): Promise<void>;
  redrive(): Promise<void>;
  /** What is on record, without times. */
  standing(): Promise<Fields>;
  close(): Promise<void>;
}

/** Columns of the chain that an operator may set. */
export interface Settings {
  readonly scrubRows?: number;
  readonly refill?: boolean;
  /** How many times the walk was asked to open. */
  readonly walkWanted?: number;
  readonly paused?: boolean;
  readonly replayWindowMs?: number;
}

/** Where the walk stands when a batch is applied. */
export function walkAfterBatch(
  before: WalkMove,
  batch: Batch,
): WalkMove {
  const touched = batch.tables.map(({ table }) => table);
  return walkAfter(before, { ...batch, touched });
}

/** Three schemas of the same tables: a column more, and another type. */
export const SCHEMAS: readonly Schema[] = [
  { id: "INTEGER", name: "TEXT", size: "INTEGER" },
  { id: "INTEGER", name: "TEXT", size: "INTEGER", extra: "TEXT" },
  { id: "INTEGER", name: "TEXT", size: "TEXT", extra: "TEXT" },
].map((columns, at) =>
  parseSchema({
    tables: {
      item: { key: "id", columns, indexes: at === 0 ? [] : ["name"] },
      part: {
        key: ["item", "code"],
        columns: { item: "INTEGER", code: "TEXT", note: "TEXT" },
        indexes: [],
      },
    },
  })
);

/** Their hashes. */
export const HASHES: readonly string[] = await Promise.all(
  SCHEMAS.map(schemaHash),
);

/** The replica's row as the moves leave it, without a replica. */
export function rowAfter(
  row: ReplicaRow | null,
  claim: Claim | Batch,
  hash: string = HASHES[0]!,
): ReplicaRow | null {
  switch (claim.do) {
    case "bootstrap":
      return { ...START, ...genesis(claim.epoch), schema_hash: hash };
    case "adopt":
      return {
        ...row!,
        ...START,
        ...genesis(claim.epoch),
        from_epoch: claim.from,
        schema_hash: claim.wipe ? hash : row!.schema_hash,
        fresh: claim.wipe ? START.fresh : "[]",
      };
    case "alter":
      return { ...row!, schema_hash: hash, walk_at: null, walk_done: 0 };
    case "batch":
      return {
        ...row!,
        ...walkAfterBatch(row!, claim),
        epoch: claim.epoch,
        position: claim.position,
        batch: claim.batch,
        prev: claim.prev,
        drained: claim.drained ? 1 : 0,
        snapshot: claim.snapshot,
        source_time: claim.sourceTime,
        // Now and then more than is on record: the source was restored.
        dead_letters: claim.deadLetters + (claim.position % 7 === 0 ? 2 : 0),
      };
    default:
      return row;
  }
}

const START = {
  epoch: "",
  position: 0,
  batch: "",
  prev: null,
  from_epoch: null,
  walk_gen: 0,
  walk_at: null,
  walk_done: 0,
  fresh: '["item","part"]',
  unindexed: "[]",
  rebuilding: "[]",
  drained: 0,
  snapshot: null,
  source_time: null,
  schema_hash: "",
  dead_letters: 0,
  bytes: 4096,
};

function genesis(epoch: string) {
  return { epoch, batch: epoch, position: 0 };
}

/** The source's verbs over a carrier, for a worker of a schema. */
export function sourceOf(carrier: Carrier, schema = 0): Source {
  return createSource(carrier, {
    schemaHash: HASHES[schema]!,
    leaseSeconds: 1000,
  });
}

/** Sizes of a claim. */
export const SIZE = { rows: 100, bytes: 1_000_000 };

/** One key. */
const ONE = { rows: 1, bytes: 1_000_000 };

/** What comes of a claim that settles nothing. */
const NOTHING = { acked: 0, putBack: 0 };

/** The columns of an item in the first schema. */
const COLUMNS = ["id", "name", "size"];
const NO_ROWS = {
  table: "item",
  truncate: false,
  rows: [],
  gone: [],
  broken: [],
};

/** The keys of the items that batches bring, in order. */
function keysIn(batches: Batch | readonly Batch[]): (string | null)[][] {
  return [batches].flat().flatMap(({ tables }) =>
    tables.flatMap(({ rows }) => rows.map(([id]) => [id!]))
  ).sort();
}

/** A page as large as it gets. */
export const PAGE = { rows: 100, bytes: 1_000_000, scrub: true, keys: null };

/** One insert of one item. */
export function insert(
  id: number,
  name = `i${id}`,
): UserStatement & { kind: "insert" } {
  const row = { id: String(id), name, size: String(id), extra: null };
  return { kind: "insert", table: "item", rows: [row] };
}

/** A worker of the tests: it applies by itself, without a replica. */
class Hand {
  row: ReplicaRow | null = null;
  readonly source: Source;
  constructor(
    readonly carrier: Carrier,
    readonly lease: string,
    readonly schema = 0,
  ) {
    this.source = sourceOf(carrier, schema);
  }

  async claim(
    more: Partial<Parameters<Source["claim"]>[0]> = {},
  ): Promise<Claim> {
    return await this.source.claim({
      lease: this.lease,
      row: this.row,
      size: SIZE,
      ...more,
    });
  }

  apply(claim: Claim | Batch): void {
    this.row = rowAfter(this.row, claim, HASHES[this.schema]);
  }

  /** Claims and applies until there is nothing to do. */
  async drain(more: Parameters<Hand["claim"]>[0] = {}): Promise<Batch[]> {
    const batches: Batch[] = [];
    for (let tries = 0; tries < 50; tries++) {
      await this.source.lease(this.lease);
      const claim = await this.claim(more);
      if (claim.do === "idle") return batches;
      if (claim.do === "batch") batches.push(claim);
      this.apply(claim);
    }
    throw new Error("not idle after 50 claims");
  }
}

/** A claim that must be a batch. */
async function batchOf(claim: Promise<Claim>): Promise<Batch & Settled> {
  const found = await claim;
  assertEquals(found.do, "batch", JSON.stringify(found));
  return found as Batch & Settled;
}

const NO_WALKS = { scrubRows: 0, refill: false, walkWanted: 0 };

/**
 * Declares the tests of a source.
 *
 * @param name Which source.
 * @param make Makes one with the first schema in force and empty tables.
 */
export function testSource(
  name: string,
  make: () => Promise<SourceUnderTest>,
): void {
  const test = (
    title: string,
    run: (source: SourceUnderTest, hand: Hand) => Promise<void>,
  ) =>
    Deno.test(`${name}: ${title}`, async () => {
      const source = await make();
      try {
        await source.set(NO_WALKS);
        await run(source, new Hand(source.carrier, LEASE));
      } finally {
        await source.close();
      }
    });
  const LEASE = "11111111-1111-4111-8111-111111111111";
  const OTHER = "22222222-2222-4222-8222-222222222222";

  test(
    "claim() hands out a new version every time, and settles the one that landed",
    async (source, hand) => {
      await source.run(insert(1));
      assertEquals((await hand.source.lease(LEASE)).do, "granted");
      assertEquals((await hand.source.lease(OTHER)).do, "busy");
      const start = await hand.claim();
      assertEquals(start.do, "bootstrap");
      hand.apply(start);
      const first = await batchOf(hand.claim());
      assertEquals(first.tables, [
        { ...NO_ROWS, columns: COLUMNS, rows: [["1", "i1", "1"]] },
      ]);
      assertEquals([first.drained, first.messages], [true, 1]);
      await source.run(insert(2));
      const second = await batchOf(hand.claim());
      assertEquals(
        [second.position, second.prev, second.messages],
        [first.position, first.prev, 2],
      );
      assert(second.batch !== first.batch);
      const before = await source.standing();
      assertEquals([before.queue, before.archive], [[1, 2], []]);
      hand.apply(first);
      const third = await batchOf(hand.claim());
      assertEquals([third.acked, third.position, third.messages], [1, 2, 1]);
      const after = await source.standing();
      assertEquals([after.queue, after.archive], [[2], [1]]);
      hand.apply(third);
      const idle = await hand.claim();
      assertEquals([idle.do, idle.acked, idle.putBack], ["idle", 1, 0]);
    },
  );

  test(
    "claim() sees what commits late, behind what it acked",
    async (source, hand) => {
      await source.begin(1);
      await source.run(insert(1), 1);
      await source.run(insert(2));
      const first = await hand.drain();
      await source.end(1, "commit");
      const second = await hand.drain();
      assertEquals([first, second].map(keysIn), [[["2"]], [["1"]]]);
    },
  );

  test(
    "claim() reads the rows of keys as they are, and says which are gone",
    async (source, hand) => {
      for (const id of [1, 2, 3]) await source.run(insert(id));
      const keys = ['["1"]', '["2"]'];
      await source.run({
        kind: "update",
        table: "item",
        keys,
        set: { name: "b" },
      });
      await source.run({
        kind: "rekey",
        table: "item",
        key: '["2"]',
        set: { id: "4" },
      });
      await source.run({ kind: "delete", table: "item", keys: ['["3"]'] });
      const [batch, ...more] = await hand.drain();
      const [item, ...others] = batch!.tables;
      assertEquals([more, others, batch!.messages], [[], [], 6]);
      assertEquals([...item!.rows].sort(), [["1", "b", "1"], ["4", "b", "2"]]);
      assertEquals([...item!.gone].sort(), [["2"], ["3"]]);
      assertEquals(item!.truncate, false);
    },
  );

  test(
    "claim() without a lease is busy, and refuses what is not its own",
    async (source, hand) => {
      await source.run(insert(1));
      await hand.drain();
      const row = hand.row!;
      assertEquals((await hand.claim()).do, "busy");
      await hand.source.lease(LEASE);
      for (
        const [other, error] of [
          [{ ...row, position: 2, batch: OTHER }, "replica_ahead"],
          [{ ...row, position: 7 }, "replica_ahead"],
          [{ ...row, epoch: OTHER }, "replica_foreign"],
          [{ ...row, schema_hash: "unknown" }, "schema_outdated"],
        ] as const
      ) {
        hand.row = other;
        assertEquals(await hand.claim(), { ...NOTHING, do: "stop", error });
      }
      const newer = new Hand(source.carrier, LEASE, 1);
      assertEquals(await newer.claim(), {
        ...NOTHING,
        do: "stop",
        error: "schema_unknown",
      });
    },
  );

  test(
    "claim() takes another source's replica over when told",
    async (_, hand) => {
      await hand.drain();
      await hand.source.lease(LEASE);
      hand.row = { ...hand.row!, epoch: OTHER };
      const answer = await hand.claim({ takeOver: true });
      assert(answer.do === "adopt" && answer.wipe && answer.from === OTHER);
      hand.apply(answer);
      assertEquals((await batchOf(hand.claim())).position, 1);
    },
  );

  test(
    "claim() puts back what the replica lost, and adopts what it cannot",
    async (source, hand) => {
      for (const id of [1, 2, 3]) await source.run(insert(id));
      const batches = await hand.drain({ size: ONE });
      const newest = hand.row!;
      const start = { ...newest, position: 0, batch: newest.epoch };
      await hand.source.lease(LEASE);
      hand.row = start;
      const again = await batchOf(hand.claim());
      assertEquals(
        [again.putBack, again.position, again.messages],
        [batches.length, 1, 3],
      );
      const back = await source.standing();
      assertEquals([back.queue, back.archive], [[1, 2, 3], []]);
      // It was there all the time.
      hand.row = newest;
      const idle = await hand.claim();
      assertEquals([idle.do, idle.acked, idle.putBack], ["idle", 3, 0]);
      await hand.source.lease(LEASE);
      hand.row = start;
      hand.apply(await hand.claim());
      const other = await hand.claim();
      assertEquals([other.do, other.acked, other.putBack], ["idle", 3, 0]);
      await hand.source.lease(LEASE);
      hand.row = { ...newest, position: 2, batch: OTHER };
      const adopt = await hand.claim();
      assert(
        adopt.do === "adopt" && !adopt.wipe && adopt.from === newest.epoch,
      );
    },
  );

  test(
    "claim() adopts where the replay window was trimmed",
    async (source, hand) => {
      await source.run(insert(1));
      await source.set({ replayWindowMs: 0 });
      await hand.drain();
      await source.run(insert(2));
      await hand.drain();
      await hand.source.lease(LEASE);
      assertEquals((await hand.claim()).do, "idle");
      assertEquals((await source.standing()).archive, [2]);
      await hand.source.lease(LEASE);
      hand.row = { ...hand.row!, position: 0, batch: hand.row!.epoch };
      assertEquals((await hand.claim()).do, "adopt");
    },
  );

  test(
    "claim() settles whichever version of a position landed",
    async (source, hand) => {
      for (const id of [1, 2, 3]) await source.run(insert(id));
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      const whole = await batchOf(hand.claim());
      const part = await batchOf(hand.claim({ size: ONE }));
      assertEquals([whole, part].map(keysIn), [[["1"], ["2"], ["3"]], [["1"]]]);
      assertEquals([part.drained, part.snapshot], [false, "3:3:"]);
      const start = hand.row!;
      hand.apply(part);
      assertEquals((await batchOf(hand.claim())).acked, 1);
      // A failover loses it, and the other one comes late.
      hand.row = start;
      hand.apply(whole);
      const idle = await hand.claim();
      assertEquals([idle.do, idle.acked, idle.putBack], ["idle", 3, 1]);
    },
  );

  test(
    "claim() cuts a message that is too much, and puts its first keys back",
    async (source, hand) => {
      const rows = [1, 2, 3].map((id) => insert(id).rows[0]!);
      await source.run({ kind: "insert", table: "item", rows });
      const size = { rows: 2, bytes: 1_000_000 };
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      const start = hand.row!;
      const first = await batchOf(hand.claim({ size }));
      assertEquals([keysIn(first), first.drained], [[["1"], ["2"]], false]);
      const ahead = await batchOf(hand.claim({ size, ahead: first.batch }));
      assertEquals([keysIn(ahead), ahead.drained], [[["3"]], true]);
      hand.apply(first);
      const rest = await batchOf(hand.claim());
      assertEquals([keysIn(rest), rest.acked], [[["3"]], 0]);
      hand.apply(rest);
      assertEquals((await hand.claim()).acked, 1);
      await hand.source.lease(LEASE);
      hand.row = start;
      const again = await batchOf(hand.claim());
      assertEquals(keysIn(again), [["1"], ["2"], ["3"]]);
      assertEquals((await source.standing()).queue, [1]);
    },
  );

  test(
    "claim() understands messages of other formats by their keys",
    async (source, hand) => {
      for (const id of [1, 2]) await source.run(insert(id));
      await hand.drain();
      const columns = ["name", "id"];
      const messages: Message[] = [
        { v: 1, table: "item", columns, updates: [["old", "1"]] },
        { v: 1, table: "item", key: ["id"], deletes: [["7"]] },
        {
          type: "UPDATE",
          table: "item",
          record: { id: 2, name: "x" },
          old_record: { id: 8 },
        },
      ];
      for (const message of messages) await source.send(message);
      const [batch] = await hand.drain();
      const [item] = batch!.tables;
      assertEquals([...item!.rows].sort(), [
        ["1", "i1", "1"],
        ["2", "i2", "2"],
      ]);
      assertEquals([...item!.gone].sort(), [["7"], ["8"]]);
    },
  );

  test(
    "claim() says which messages have no usable key",
    async (source, hand) => {
      await hand.drain();
      const messages: Message[] = [
        [1, 2],
        { v: 2, table: "nowhere", truncate: true },
        { v: 2, table: "item" },
        { v: 2, table: "part", keys: [["1"]] },
      ];
      for (const message of messages) await source.send(message);
      await hand.source.lease(LEASE);
      const batch = await batchOf(hand.claim());
      const tables = batch.unusable.map(({ table }) => table);
      assertEquals(tables, [null, null, "item", "part"]);
      assertEquals([batch.messages, batch.tables], [4, []]);
      const [first] = batch.unusable;
      assert(await hand.source.park(batch, [{ ...first!, key: null }]));
      hand.apply(batch);
      await hand.drain();
      const { letters, queue } = await source.standing();
      assertEquals([letters, queue], [[{
        table: null,
        key: null,
        reason: first!.reason,
        epoch: batch.epoch,
        position: batch.position,
        batch: batch.batch,
      }], []]);
    },
  );

  test(
    "claim() empties a table that is empty, and walks one that has rows again",
    async (source, hand) => {
      await source.run(insert(1));
      await hand.drain();
      await source.run({ kind: "truncate", table: "item" });
      const [batch] = await hand.drain();
      assertEquals(batch!.tables, [
        { ...NO_ROWS, columns: COLUMNS, truncate: true },
      ]);
      assertEquals(batch!.reopen, false);
      const { rows } = insert(2);
      await source.run({ kind: "reload", table: "item", rows });
      await hand.source.lease(LEASE);
      for (const landed of [false, true]) {
        const filled = await batchOf(hand.claim({ page: PAGE }));
        assertEquals([filled.reopen, filled.page], [true, null]);
        const [item] = filled.tables;
        assertEquals([item!.truncate, item!.rows.length], [false, 1]);
        if (landed) hand.apply(filled);
      }
      assertEquals(hand.row!.walk_done, 0);
      assertEquals((await hand.claim()).do, "idle");
    },
  );

  test(
    "claim() leaves what concerns a table that it cannot lock",
    async (source, hand) => {
      await source.run(insert(1));
      const note = { item: "1", code: "a", note: "n" };
      await source.run({ kind: "insert", table: "part", rows: [note] });
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      await source.begin(1);
      await source.run({ kind: "truncate", table: "item" }, 1);
      const batch = await batchOf(hand.claim());
      const names = batch.tables.map(({ table }) => table);
      assertEquals([names, batch.drained], [["part"], false]);
      hand.apply(batch);
      assertEquals((await hand.claim()).do, "idle");
      await source.end(1, "commit");
      await hand.source.lease(LEASE);
      const [item] = (await batchOf(hand.claim())).tables;
      assertEquals([item!.truncate, item!.rows], [true, []]);
    },
  );

  const ROW = { table: "item", key: ["1"], reason: "r" };

  test(
    "park() grows a set, while its version stands on the head",
    async (source, hand) => {
      await source.run(insert(1));
      await source.run(insert(2));
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      const first = await batchOf(hand.claim({ size: ONE }));
      const other = await batchOf(hand.claim());
      const ahead = await batchOf(hand.claim({ ahead: first.batch }));
      assert(await hand.source.park(first, [ROW]));
      assert(await hand.source.park(first, [{ ...ROW, reason: "again" }]));
      assert(await hand.source.park(ahead, [{ ...ROW, key: ["2"] }]));
      hand.apply(first);
      await hand.claim();
      for (const late of [first, other]) {
        assertEquals(await hand.source.park(late, [ROW]), false);
      }
      const { letters } = await source.standing();
      assertEquals(
        (letters as Fields[]).map(({ key, reason }) => [key, reason]),
        [[["1"], "r"]],
      );
    },
  );

  test(
    "claim() closes a dead letter by a change of its row, and undoes that",
    async (source, hand) => {
      const keys = async () =>
        ((await source.standing()).letters as Fields[]).map(({ key }) => key);
      await source.run(insert(1));
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      const start = hand.row!;
      const batch = await batchOf(hand.claim());
      assert(await hand.source.park(batch, [ROW]));
      hand.apply(batch);
      await hand.drain();
      const parked = hand.row!;
      assertEquals(await keys(), [["1"]]);
      const update = {
        kind: "update",
        table: "item",
        keys: ['["1"]'],
        set: { name: "b" },
      } as const;
      await source.run(update);
      await hand.drain();
      assertEquals(await keys(), []);
      for (const [row, letters] of [[parked, 1], [start, 0]] as const) {
        await hand.source.lease(LEASE);
        hand.row = row;
        await batchOf(hand.claim());
        assertEquals((await keys()).length, letters);
      }
    },
  );

  test(
    "claim() closes every dead letter of a table that it empties",
    async (source, hand) => {
      await source.run(insert(1));
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      const batch = await batchOf(hand.claim());
      assert(await hand.source.park(batch, [ROW]));
      hand.apply(batch);
      await source.run({ kind: "truncate", table: "item" });
      await hand.drain();
      assertEquals((await source.standing()).letters, []);
    },
  );

  test(
    "reset() begins one epoch, and the replica adopts it",
    async (source, hand) => {
      await source.run(insert(1));
      await hand.drain();
      const { epoch } = hand.row!;
      const request = { expected: epoch, wipe: true, reason: "nuke" };
      const begun = await hand.source.reset(request);
      assertEquals(begun.do, "begun");
      assertEquals(await hand.source.reset(request), { ...begun, do: "moved" });
      await hand.source.lease(LEASE);
      const adopt = await hand.claim();
      assert(adopt.do === "adopt" && adopt.wipe && adopt.from === epoch);
      assertEquals(adopt.reason, "nuke");
      hand.row = null;
      const start = await hand.claim();
      assert(start.do === "bootstrap" && start.wipe);
    },
  );

  test(
    "claim() walks every table once drained, forward and back",
    async (source, hand) => {
      for (const id of [1, 2, 3]) await source.run(insert(id));
      await hand.drain();
      await source.set({ refill: true });
      hand.row = { ...hand.row!, drained: 0, fresh: "[]" };
      const page = { ...PAGE, rows: 2 };
      const pages: unknown[] = [];
      for (let n = 0; n < 5; n++) {
        await hand.source.lease(LEASE);
        const at = hand.row!.walk_at;
        const code = at?.includes("part") ? ["a"] : [];
        const two = [["2", ...code], ["9", ...code]];
        const keys = at?.includes("back")
          ? { at, keys: two, after: two[1]!, last: true }
          : null;
        const found = await batchOf(hand.claim({ page: { ...page, keys } }));
        const { table, half, rows, ghosts, cells, closes } = found.page!;
        pages.push([table, half, rows, ghosts, cells.length, closes]);
        hand.apply(found);
      }
      assertEquals(pages, [
        ["item", "forward", 2, [], 2, false],
        ["item", "forward", 1, [], 1, false],
        ["item", "back", 2, [["9"]], 0, false],
        ["part", "forward", 0, [], 0, false],
        ["part", "back", 2, [["2", "a"], ["9", "a"]], 0, true],
      ]);
      assertEquals(hand.row!.walk_done, 1);
    },
  );

  /** Claims pages until the replica's keys are due. */
  const untilBack = async (source: SourceUnderTest, hand: Hand) => {
    await source.set({ refill: true });
    hand.row = { ...hand.row!, drained: 0, fresh: "[]" };
    while (!hand.row!.walk_at?.includes("back")) {
      await hand.source.lease(LEASE);
      hand.apply(await batchOf(hand.claim({ page: PAGE })));
    }
  };
  const counting = (hand: Hand, count: number) => ({
    page: { ...PAGE, keys: { at: hand.row!.walk_at!, count } },
  });

  test(
    "claim() asks for no keys where the replica has as many rows",
    async (source, hand) => {
      for (const id of [1, 2, 3]) await source.run(insert(id));
      await hand.drain();
      await untilBack(source, hand);
      const { page } = await batchOf(hand.claim(counting(hand, 3)));
      assertEquals([page!.half, page!.last, page!.ghosts], ["back", true, []]);
      assertEquals(parsePlace(page!.upto)?.table, "part");
    },
  );

  /** Sets the row of a message aside. */
  const setAside = async (source: SourceUnderTest, hand: Hand, id: number) => {
    await source.run(insert(id));
    await hand.source.lease(LEASE);
    const batch = await batchOf(hand.claim());
    const aside = { table: "item", key: [String(id)], reason: "r" };
    assert(await hand.source.park(batch, [aside]));
    hand.apply(batch);
    await hand.drain();
  };
  for (const where of ["more", "on their way", "set aside"] as const) {
    test(
      `claim() asks for keys where rows are ${where}`,
      async (source, hand) => {
        for (const id of [1, 2, 3]) await source.run(insert(id));
        await hand.drain();
        if (where === "set aside") await setAside(source, hand, 4);
        await untilBack(source, hand);
        if (where === "on their way") await source.run(insert(4));
        const { page } = await batchOf(hand.claim(counting(hand, 4)));
        assertEquals(
          [page!.half, page!.last, page!.ghosts],
          ["back", false, []],
        );
        const { half, after, isCounted } = parsePlace(page!.upto)!;
        assertEquals([half, after, isCounted], ["back", null, true]);
      },
    );
  }

  test(
    "claim() goes on with a walk ahead of a page that is being applied",
    async (source, hand) => {
      for (const id of [1, 2, 3]) await source.run(insert(id));
      await hand.drain();
      await source.set({ refill: true });
      hand.row = { ...hand.row!, drained: 0, fresh: "[]" };
      const page = { ...PAGE, rows: 1 };
      await hand.source.lease(LEASE);
      const first = await batchOf(hand.claim({ page }));
      const before = { page, ahead: first.batch };
      assertEquals((await hand.claim({ ahead: first.batch })).do, "none");
      const second = await batchOf(hand.claim(before));
      const places = [first, second].map(({ page }) =>
        parsePlace(page!.upto)!.after
      );
      assertEquals(places, [["1"], ["2"]]);
      assertEquals([second.prev, second.drained], [first.batch, true]);
      hand.apply(first);
      hand.apply(second);
      const third = await batchOf(hand.claim({ page }));
      assertEquals(parsePlace(third.page!.upto)!.half, "back");
    },
  );

  test(
    "claim() hands out a page with what is not drained as well",
    async (source, hand) => {
      for (const id of [1, 2]) await source.run(insert(id));
      await source.set({ refill: true });
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      for (let again = 0; again < 2; again++) {
        const batch = await batchOf(hand.claim({ size: ONE, page: PAGE }));
        assertEquals([batch.drained, batch.messages], [false, 1]);
        assertEquals(batch.page!.cells.length, 2);
      }
    },
  );

  test(
    "claim() starts the walk over until a version that says so has landed",
    async (source, hand) => {
      await hand.drain();
      const before = hand.row!;
      await source.set({ walkWanted: 1 });
      await hand.source.lease(LEASE);
      const lost = await batchOf(hand.claim({ page: PAGE }));
      assertEquals((await hand.claim({ ahead: lost.batch })).do, "none");
      const batch = await batchOf(hand.claim({ page: PAGE }));
      for (const one of [lost, batch]) {
        assertEquals([one.reopen, one.page], [true, null]);
      }
      hand.apply(batch);
      assertEquals((await hand.claim()).do, "idle");
      await hand.source.lease(LEASE);
      hand.row = before;
      const again = await batchOf(hand.claim());
      assertEquals([again.putBack, again.reopen], [1, true]);
    },
  );

  test(
    "claim() starts the walk over by a message, also when it is asked for ahead",
    async (source, hand) => {
      await hand.drain();
      await source.run(insert(1));
      await source.send({ v: 2, table: "item", walk: "XX000" });
      await hand.source.lease(LEASE);
      const first = await batchOf(hand.claim({ size: ONE, page: PAGE }));
      const ahead = await hand.claim({ size: ONE, ahead: first.batch });
      assertEquals([first.reopen, ahead.do], [false, "none"]);
      hand.apply(first);
      const second = await batchOf(hand.claim({ page: PAGE }));
      assertEquals([second.reopen, second.page], [true, null]);
    },
  );

  test(
    "requestWalk() answers the same walk again, and refuses a table it has not",
    async (_, hand) => {
      await hand.drain();
      const request = { kind: "verify", table: "item", repair: false } as const;
      const walk = await hand.source.requestWalk(request);
      assertEquals(await hand.source.requestWalk(request), walk);
      const other = await hand.source.requestWalk({ ...request, table: null });
      assertEquals(other!.tables, ["item", "part"]);
      assertEquals(
        await hand.source.requestWalk({ ...request, table: "nowhere" }),
        null,
      );
    },
  );
}

type Json = Fields[string];
