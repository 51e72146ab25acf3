/**
 * Random calls of a source, the same for two of them.
 *
 * @module
 */

import { type Claim, CONTRACT } from "../../lib/chain/claim.ts";
import type { Json } from "../../lib/chain/json.ts";
import type { ReplicaRow } from "../../lib/chain/row.ts";
import { claimOf } from "../../lib/source/answers.ts";
import {
  HASHES,
  rowAfter,
  SCHEMAS,
  type Settings,
  type SourceUnderTest,
} from "./source.ts";
import { oneOf, type Random, randomOf } from "../sim/random.ts";
import type { Fields } from "../sim/source_state.ts";
import type { Row, UserStatement } from "../sim/tables.ts";

/** One side: a source and the replica's rows as its answers moved them. */
export interface Side {
  readonly source: SourceUnderTest;
  /** Every row there ever was; the last one is the newest. */
  readonly rows: (ReplicaRow | null)[];
  /** The last batch that was handed out. */
  batch: (Claim & { do: "batch" }) | null;
  /** The schema in force. */
  schema: number;
  /** Names for ids, in the order in which they were first seen. */
  readonly names: Map<string, string>;
}

/** What a step does on one side; its answer is compared. */
export type Step = (side: Side) => Promise<unknown>;

const LEASES = [
  "11111111-1111-4111-8111-111111111111",
  "22222222-2222-4222-8222-222222222222",
];
const FOREIGN = "99999999-9999-4999-8999-999999999999";

/** A step and its title; null where nothing is done. */
export function makeStep(
  random: Random,
  open: Set<number>,
  sides: readonly [Side, Side],
): [string, Step | null] {
  switch (random(22)) {
    case 0: {
      const session = 1 + random(2);
      if (open.has(session)) {
        const how = random(4) === 0 ? "rollback" : "commit";
        open.delete(session);
        return [`${how} ${session}`, ({ source }) => source.end(session, how)];
      }
      open.add(session);
      return [`begin ${session}`, ({ source }) => source.begin(session)];
    }
    case 1:
    case 2:
    case 3:
    case 4: {
      const statement = makeStatement(random);
      const session = open.has(1) && random(3) === 0
        ? 1
        : open.has(2) && random(3) === 0
        ? 2
        : undefined;
      const title = `${JSON.stringify(statement)} in ${session ?? "its own"}`;
      return [title, runStatement(statement, session)];
    }
    case 5: {
      const message = oneOf<Json>(random, [
        { v: 2, table: "nowhere", truncate: true },
        { v: 2, table: "item" },
        { v: 2, table: "part", keys: [["1"]] },
        { v: 2, table: "item", walk: "XX000" },
        { v: 1, table: "part", truncate: true },
        { v: 1, table: "item", columns: ["name", "id"], rows: [["x", "2"]] },
        { v: 1, table: "item", key: ["id"], deletes: [["3"], ["1"]] },
        { type: "INSERT", table: "item", record: { id: 2, name: "x" } },
        { type: "DELETE", table: "part", old_record: { item: 1, code: "a" } },
        [1, 2],
        "text",
      ]);
      return [
        `send ${JSON.stringify(message)}`,
        ({ source }) => source.send(message),
      ];
    }
    case 6: {
      const request = {
        lease: oneOf(random, LEASES),
        seconds: oneOf(random, [1000, 1000, -1]),
        version: random(20) === 0 ? 0 : CONTRACT,
      };
      return [
        `lease ${JSON.stringify(request)}`,
        ({ source }) => source.carrier.call("lease", request),
      ];
    }
    case 7: {
      const request = { lease: oneOf(random, LEASES) };
      return random(3) === 0
        ? [
          `release ${JSON.stringify(request)}`,
          ({ source }) => source.carrier.call("release", request),
        ]
        : ["nothing", null];
    }
    case 8:
      return makePark(random, sides);
    case 9:
      return makeRare(random);
    case 10:
    case 11:
    case 12:
      return [
        "apply",
        (side) => {
          if (side.batch !== null) move(side, side.batch);
          return Promise.resolve(side.rows.length);
        },
      ];
    case 13:
    case 14:
    case 15:
    case 16:
      return makeClaim(random);
    default:
      return makeDrive(random);
  }
}

/** A worker that does what it should, a few times. */
function makeDrive(
  random: Random,
  { times, size, rows, parks } = {
    times: 1 + random(4),
    size: oneOf(random, [1, 2, 3, 100]),
    rows: oneOf(random, [1, 100]),
    parks: random(4) === 0 ? String(random(4)) : null,
  },
): [string, Step | null] {
  const key = random(4);
  const looksAhead = random(2) === 0;
  const forgets = random(5) === 0 ? 1 + random(3) : 0;
  const [lease] = LEASES as [string];
  return [
    `drive ${times} times, ${size} keys, ${rows} rows`,
    async (side) => {
      const { call } = side.source.carrier;
      await side.source.set({ paused: false });
      // The replica lost its latest moves.
      side.rows.length = Math.max(1, side.rows.length - forgets);
      for (const other of LEASES) await call("release", { lease: other });
      const answers: unknown[] = [];
      for (let n = 0; n < times; n++) {
        await call("lease", { lease, seconds: 1000, version: CONTRACT });
        const row = side.rows.at(-1)!;
        const answer = await call("claim", {
          lease,
          seconds: 1000,
          schema: HASHES[side.schema]!,
          row: row === null ? null : { ...row },
          rows_max: size,
          bytes_max: 1_000_000,
          page: {
            rows,
            bytes: 1_000_000,
            scrub: true,
            keys: keysAt(row, key, true),
          },
          walked: [],
        });
        const claim = claimOf(answer);
        if (parks !== null && claim.do === "batch" && claim.messages > 0) {
          const { epoch, position, batch } = claim;
          const reason = size > 2 ? "libSQL refused it" : "r";
          const row = { table: "item", key: [parks], reason };
          const request = { epoch, position, batch, rows: [row] };
          answers.push(await call("park", request));
        }
        answers.push(answer);
        const next = looksAhead && claim.do === "batch"
          ? await call("claim", {
            lease,
            seconds: 1000,
            schema: HASHES[side.schema]!,
            row: { ...row! },
            rows_max: size,
            bytes_max: 1_000_000,
            ahead: claim.batch,
            page: { rows, bytes: 1_000_000, scrub: false, keys: null },
            walked: [],
          })
          : null;
        move(side, claim, HASHES[side.schema]!);
        if (next === null) continue;
        answers.push(next);
        // It may be applied as well, or lost.
        if (key % 2 === 0) move(side, claimOf(next), HASHES[side.schema]!);
      }
      return answers;
    },
  ];
}

/** A row is set aside and tried again. */
function makeRedrive(random: Random): [string, Step | null] {
  const id = String(1 + random(3));
  const rows = [{ id, name: "x", size: "y", extra: null }];
  const whole = { size: 100, rows: 100 };
  const [, park] = makeDrive(random, { ...whole, times: 3, parks: id });
  const [, walk] = makeDrive(random, { ...whole, times: 8, parks: null });
  const insert = runStatement({ kind: "insert", table: "item", rows });
  const update = runStatement({
    kind: "update",
    table: "item",
    keys: [JSON.stringify([id])],
    set: { name: String(random(1_000_000)) },
  });
  return [`park item ${id}, and redrive`, async (side) => {
    await insert(side);
    await update(side);
    const parked = await park!(side);
    await side.source.redrive();
    return [parked, await walk!(side)];
  }];
}

/** Keys as a replica might have them, where a walk asks for them. */
function keysAt(row: ReplicaRow | null, key: number, last: boolean) {
  const at = row?.walk_at ?? null;
  const place = at === null ? null : JSON.parse(at);
  if (place?.half !== "back") return null;
  const keys = place.table === "part"
    ? [[String(key), "a"], [String(key + 1), "b"]]
    : [[String(key)], [String(key + 1)]];
  return { at: at!, keys, after: keys[1]!, last };
}

/** A statement, where it need not wait: the model comes first, and tells. */
function runStatement(statement: UserStatement, session?: number): Step {
  let made = true;
  return async ({ source }) => {
    if (made) made = await source.run(statement, session);
  };
}

function makeStatement(random: Random): UserStatement {
  const table = oneOf(random, ["item", "item", "part"]);
  const key = () =>
    JSON.stringify([
      String(1 + random(4)),
      ...(table === "part" ? [oneOf(random, ["a", "b"])] : []),
    ]);
  const value = () => oneOf(random, ["x", "y", "z", null]);
  const keys = [...new Set(Array.from({ length: 1 + random(2) }, key))];
  const row = (name: string): Row => {
    const [id, code] = JSON.parse(name) as string[];
    return table === "item"
      ? { id: id!, name: value(), size: value(), extra: value() }
      : { item: id!, code: code!, note: value() };
  };
  const cell = table === "item"
    ? oneOf(random, ["name", "size", "extra"])
    : "note";
  switch (random(12)) {
    case 0:
      return random(2) === 0
        ? { kind: "truncate", table }
        : { kind: "reload", table, rows: keys.map(row) };
    case 1:
    case 2:
      return { kind: "delete", table, keys };
    case 3:
    case 4:
      return {
        kind: "rekey",
        table,
        key: keys[0]!,
        set: { [table === "item" ? "id" : "item"]: String(1 + random(5)) },
      };
    case 5:
    case 6:
    case 7:
      return { kind: "update", table, keys, set: { [cell]: value() } };
    default:
      return { kind: "insert", table, rows: keys.map(row) };
  }
}

function makePark(
  random: Random,
  [first]: readonly [Side, Side],
): [string, Step | null] {
  if (first.batch === null) return ["nothing", null];
  const rows = [{
    table: oneOf(random, ["item", "part"]),
    key: oneOf(random, [["1"], ["2"], null]),
    reason: oneOf(random, ["r", "libSQL refused it"]),
  }];
  return [`park ${JSON.stringify(rows)}`, ({ source, batch }) => {
    const { epoch, position, batch: id } = batch!;
    const request = { epoch, position, batch: id, rows };
    return source.carrier.call("park", request);
  }];
}

function makeRare(random: Random): [string, Step | null] {
  switch (random(8)) {
    case 0: {
      const isRight = random(3) > 0;
      const wipe = random(2) === 0;
      const refill = oneOf(random, [true, false, null]);
      return [`reset ${isRight} ${wipe} ${refill}`, async ({ source }) => {
        const { chain } = await source.standing();
        const expected = isRight ? (chain as Fields).epoch as string : FOREIGN;
        const request = { expected, wipe, reason: "nuke" };
        return await source.carrier.call(
          "reset",
          refill === null ? request : { ...request, refill },
        );
      }];
    }
    case 1:
    case 2: {
      const request = {
        kind: oneOf(random, ["backfill", "verify"]),
        table: oneOf(random, [null, "item", "part", "nowhere"]),
        repair: random(2) === 0,
      };
      return [
        `request_walk ${JSON.stringify(request)}`,
        ({ source }) => source.carrier.call("request_walk", request),
      ];
    }
    case 3:
    case 6: {
      const schema = random(3);
      return [
        `configure ${schema}`,
        async (side) => {
          const { source } = side;
          const made = await source.configure(
            SCHEMAS[schema]!,
            HASHES[schema]!,
          );
          if (made) side.schema = schema;
          return made;
        },
      ];
    }
    case 4:
    case 5:
      return makeRedrive(random);
    default: {
      const settings = oneOf<Settings>(random, [
        { scrubRows: 0 },
        { scrubRows: 2 },
        { refill: false },
        { refill: true },
        { paused: true },
        { walkWanted: 1_000 },
        { replayWindowMs: 0 },
        { replayWindowMs: 3_600_000 },
      ]);
      return [
        `set ${JSON.stringify(settings)}`,
        ({ source }) => source.set(settings),
      ];
    }
  }
}

/** A claim by a row that is right, old, foreign, ahead or none. */
function makeClaim(random: Random): [string, Step | null] {
  const which = oneOf(random, [
    ...Array<string>(10).fill("newest"),
    "old",
    "old",
    "none",
    "foreign",
    "ahead",
    "other batch",
    "other schema",
  ]);
  const lease = oneOf(random, LEASES);
  const schema = oneOf(random, [0, 0, 0, 1, 2]);
  const size = oneOf(random, [0, 1, 2, 3, 100, 100]);
  const rows = oneOf(random, [null, 1, 2, 100]);
  const scrub = random(2) === 0;
  const isAhead = random(6) === 0;
  const takeOver = random(6) === 0;
  const old = random(1000);
  const key = random(5);
  const isLast = random(2) === 0;
  const ended = random(3) === 0;
  const isKeyed = random(5) > 0;
  // Nearly always the lease is taken first.
  const isLeased = random(8) > 0;
  const title =
    `claim by ${which} row, schema ${schema}, ${size} keys, page ${rows}${
      isAhead ? ", ahead" : ""
    }${takeOver ? ", take over" : ""}`;
  return [title, async (side) => {
    const { source, rows: all } = side;
    const newest = all.at(-1)!;
    const row = which === "old"
      ? all[old % all.length]!
      : which === "none"
      ? null
      : newest && {
        ...newest,
        ...(which === "foreign" ? { epoch: FOREIGN } : {}),
        ...(which === "ahead"
          ? { position: newest.position + 1 + old % 2 }
          : {}),
        ...(which === "other batch" ? { batch: FOREIGN } : {}),
        ...(which === "other schema" ? { schema_hash: HASHES[old % 3]! } : {}),
      };
    const leased = isLeased
      ? await source.carrier.call("lease", {
        lease,
        seconds: 1000,
        version: CONTRACT,
      })
      : null;
    const keys = isKeyed ? keysAt(row, key, isLast) : null;
    const walked = ended && row !== null && row.walk_gen > 0
      ? [{
        walk_gen: row.walk_gen,
        table: oneOf(randomOf(old), ["item", "part"]),
        rows: 1,
        differing: 0,
        ghosts: 0,
        ended: true,
        failed: null,
      }]
      : [];
    const answer = await source.carrier.call("claim", {
      lease,
      seconds: 1000,
      schema: HASHES[schema]!,
      row: row === null ? null : { ...row },
      rows_max: size,
      bytes_max: 1_000_000,
      ...(isAhead && side.batch !== null ? { ahead: side.batch.batch } : {}),
      ...(takeOver ? { take_over: true } : {}),
      ...(rows === null
        ? {}
        : { page: { rows, bytes: 1_000_000, scrub, keys } }),
      walked,
    });
    const claim = claimOf(answer);
    if (claim.do === "batch") side.batch = claim;
    else if (which === "newest" || which === "none") {
      move(side, claim, HASHES[schema]!);
    }
    return [leased, answer];
  }];
}

/** Moves a side's row as a replica would. */
function move(side: Side, claim: Claim, hash = ""): void {
  const row = side.rows.at(-1)!;
  if (claim.do === "batch") {
    const isNext = row !== null && row.epoch === claim.epoch &&
      row.position + 1 === claim.position && row.batch === claim.prev;
    if (!isNext) return;
  }
  if (claim.do === "bootstrap" && row !== null) return;
  const after = rowAfter(row, claim, hash);
  if (after !== row) side.rows.push(after);
}
