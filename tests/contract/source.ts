/**
 * What every source must do, in memory or in PostgreSQL: the functions of
 * schema libsql_sync as their callers see them.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { Batch, Carrier, Claim } from "../../lib/chain/claim.ts";
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

/** A page as large as it gets. */
export const PAGE = { rows: 100, bytes: 1_000_000, scrub: true, keys: null };

/** One insert of one item. */
export function insert(id: number, name = `i${id}`): UserStatement {
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
async function batchOf(claim: Promise<Claim>): Promise<Batch> {
  const found = await claim;
  assertEquals(found.do, "batch", JSON.stringify(found));
  return found as Batch & { acked: number };
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

  test("claim() hands out, repeats and acks a batch", async (source, hand) => {
    await source.run(insert(1));
    assertEquals((await hand.source.lease(LEASE)).do, "granted");
    assertEquals((await hand.source.lease(OTHER)).do, "busy");
    const start = await hand.claim();
    assertEquals(start.do, "bootstrap");
    hand.apply(start);
    const first = await batchOf(hand.claim());
    const again = await batchOf(hand.claim());
    assertEquals([first.kind, again.kind], ["new", "again"]);
    const alone = first.messages.map(([ids, message]) =>
      [[ids].flat()[0]!, message] as const
    );
    assertEquals(again, { ...first, kind: "again", messages: alone });
    assertEquals(first.drained, true);
    const before = await source.standing();
    assertEquals([before.queue, before.archive], [[1], []]);
    hand.apply(first);
    const idle = await hand.claim();
    assertEquals([idle.do, idle.acked], ["idle", 1]);
    const after = await source.standing();
    assertEquals([after.queue, after.archive], [[], [1]]);
  });

  test(
    "claim() sees what commits late, behind what it acked",
    async (source, hand) => {
      await source.begin(1);
      await source.run(insert(1), 1);
      await source.run(insert(2));
      const first = await hand.drain();
      await source.end(1, "commit");
      const second = await hand.drain();
      assertEquals(
        [first, second].map((batches) =>
          batches.flatMap(({ messages }) => messages.map(([ids]) => ids))
        ),
        [[["2"]], [["1"]]],
      );
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
        assertEquals(await hand.claim(), { do: "stop", acked: 0, error });
      }
      const newer = new Hand(source.carrier, LEASE, 1);
      assertEquals(await newer.claim(), {
        do: "stop",
        acked: 0,
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
    "claim() replays what the replica lost, and adopts what it cannot",
    async (source, hand) => {
      for (const id of [1, 2, 3]) await source.run(insert(id));
      await hand.drain({ size: { messages: 1, bytes: 1_000_000 } });
      const newest = hand.row!;
      await hand.source.lease(LEASE);
      const batches: Batch[] = [];
      hand.row = { ...newest, position: 0, batch: newest.epoch };
      for (let n = 0; n < 3; n++) {
        batches.push(await batchOf(hand.claim()));
        hand.apply(batches.at(-1)!);
      }
      assertEquals(batches.map(({ kind }) => kind), Array(3).fill("replay"));
      assertEquals(hand.row!.batch, newest.batch);
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
      assertEquals((await source.standing()).archive, []);
      await hand.source.lease(LEASE);
      hand.row = { ...hand.row!, position: 0, batch: hand.row!.epoch };
      assertEquals((await hand.claim()).do, "adopt");
    },
  );

  test(
    "claim() splits, and acks whichever version was applied",
    async (source, hand) => {
      for (const id of [1, 2, 3]) await source.run(insert(id));
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      const whole = await batchOf(hand.claim());
      await hand.source.park(whole, [{
        msgId: "3",
        table: "item",
        key: ["3"],
        reason: "r",
      }]);
      const split = { batch: whole.batch, messages: 2 };
      const part = await batchOf(hand.claim({ split }));
      assertEquals(part.messages.map(([ids]) => ids), ["1", "2"]);
      assertEquals([part.drained, part.parked], [false, []]);
      hand.apply(whole);
      const idle = await hand.claim();
      assertEquals([idle.do, idle.acked], ["idle", 3]);
      const { letters } = await source.standing();
      assertEquals((letters as Fields[]).map(({ key }) => key), [["3"]]);
    },
  );

  test(
    "park() grows a set, files it with the ack, and heals it by a change",
    async (source, hand) => {
      await source.run(insert(1));
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      const batch = await batchOf(hand.claim());
      const change = { msgId: "1", table: "item", key: ["1"], reason: "r" };
      assert(await hand.source.park(batch, [change]));
      assert(await hand.source.park(batch, [{ ...change, reason: "again" }]));
      assertEquals((await batchOf(hand.claim())).parked, [change]);
      hand.apply(batch);
      await hand.drain();
      assertEquals(await hand.source.park(batch, [change]), false);
      assertEquals(((await source.standing()).letters as Json[]).length, 1);
      assert(await hand.source.park({ ...batch, kind: "replay" }, [change]));
      assertEquals(((await source.standing()).letters as Json[]).length, 1);
      // What changed of a row is not the row: that is tried again, once.
      const set = { name: "b" };
      const update = {
        kind: "update",
        table: "item",
        keys: ['["1"]'],
      } as const;
      await source.run({ ...update, set });
      await hand.drain();
      await source.run({ ...update, set: { name: "c" } });
      await hand.drain();
      const { letters, walks } = await source.standing();
      assertEquals((letters as Json[]).length, 1);
      assertEquals(
        (walks as Fields[]).map((
          { kind, tables, keys },
        ) => [kind, tables, keys]),
        [["redrive", ["item"], [["1"]]]],
      );
      await source.run({ kind: "delete", table: "item", keys: ['["1"]'] });
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
    const key = [String(id)];
    const aside = { msgId: String(id), table: "item", key, reason: "r" };
    assert(await hand.source.park(batch, [aside]));
    hand.apply({ ...batch, parked: [aside] });
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
      const { walkGen, upto } = first.page!;
      const before = { page, ahead: first.batch };
      assertEquals((await hand.claim(before)).do, "none");
      const second = await batchOf(
        hand.claim({ ...before, upto: { walk_gen: walkGen, walk_at: upto } }),
      );
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
    "claim() hands out no page where the batch is not drained or is repeated",
    async (source, hand) => {
      for (const id of [1, 2]) await source.run(insert(id));
      await source.set({ refill: true });
      await hand.source.lease(LEASE);
      hand.apply(await hand.claim());
      const one = { messages: 1, bytes: 1_000_000 };
      const first = await batchOf(hand.claim({ size: one, page: PAGE }));
      assertEquals([first.drained, first.page], [false, null]);
      hand.apply(first);
      const second = await batchOf(hand.claim({ size: one, page: PAGE }));
      assertEquals([second.drained, second.page !== null], [true, true]);
      const again = await batchOf(hand.claim({ size: one, page: PAGE }));
      assertEquals([again.batch, again.page], [second.batch, null]);
    },
  );

  test(
    "claim() starts the walk over where writes went past the queue",
    async (source, hand) => {
      await hand.drain();
      await source.set({ reopen: true });
      await hand.source.lease(LEASE);
      const batch = await batchOf(hand.claim({ page: PAGE }));
      assertEquals([batch.reopen, batch.page], [true, null]);
      hand.apply(batch);
      assertEquals((await hand.claim()).do, "idle");
    },
  );

  test(
    "claim() starts the walk over where capture failed, also when it is asked for ahead",
    async (source, hand) => {
      await hand.drain();
      await source.run(insert(1));
      await source.send({ v: 1, table: "item", failed: "XX000" });
      await hand.source.lease(LEASE);
      const one = { messages: 1, bytes: 1_000_000 };
      const first = await batchOf(hand.claim({ size: one, page: PAGE }));
      const ahead = await hand.claim({ size: one, ahead: first.batch });
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
