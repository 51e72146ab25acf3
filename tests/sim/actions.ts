/**
 * What may happen next in a simulation, and how often: every kind of fault,
 * and everything the users and the operator do.
 *
 * @module
 */

import { HASHES, SCHEMAS } from "../contract/source.ts";
import { type Call, deliver, lost, outcomeOf } from "./network.ts";
import type { Profile } from "./profiles.ts";
import { oneOf, type Random, randomOf, weighted } from "./random.ts";
import type { SourceModel } from "./source_model.ts";
import { redrive, requestWalk } from "./source_walks.ts";
import { KEYS, makeStatement } from "./statements.ts";
import { type Message, USER_TABLES, type UserStatement } from "./tables.ts";
import { shown, tell, titleOf } from "./tell.ts";
import type { Flow, Worker, World } from "./world.ts";

/** One decision: what, and the chance inside it. */
export interface Action {
  readonly kind: Kind;
  readonly chance: number;
}

/** The kinds of decisions. */
export type Kind = keyof typeof KINDS;

/** What a kind does; it returns what to print, or null where it cannot be. */
type Deed = (world: World, random: Random) => string | null;

const KINDS = {
  start: (world, random) => {
    if (world.running().length >= 3) return null;
    const schema = random(8) === 0 ? random(3) : world.schema;
    const source = world.clone !== null && random(3) === 0
      ? world.clone
      : world.source;
    const flow = oneOf<Flow>(random, [
      ...Array<Flow>(12).fill({ kind: "sync" }),
      { kind: "backfill" },
      { kind: "verify" },
      { kind: "verify", table: "item" },
      { kind: "mend" },
    ]);
    const callsMax = oneOf(random, [45, 45, 16, 9]);
    return started(world.start(flow, { schema, source, callsMax }), world);
  },
  /** The most ordinary request. */
  sync: (world) => {
    if (world.running().length >= 3) return null;
    return started(world.start({ kind: "sync" }), world);
  },
  mend: (world) => {
    if (world.running().length >= 3) return null;
    return started(world.start({ kind: "mend" }), world);
  },
  nuke: (world, random) => {
    if (world.running().length >= 3) return null;
    const refill = random(4) > 0;
    return started(world.start({ kind: "nuke", refill }), world);
  },
  step,
  /** Workers go on until one of them is where faults strike. */
  reach: (world, random) => {
    const { faultsAt } = world.setup;
    const calls = world.running().flatMap((worker) => [...worker.calls]);
    if (calls.some(({ name }) => name === faultsAt)) return null;
    return step(world, random);
  },
  /** It is carried out, and the worker never hears of it. */
  lose: (world, random) => {
    const call = struck(world, random);
    if (call === null || !mayRun(world, call)) return null;
    if (call.target === "sleep") return null;
    const outcome = call.held ?? outcomeOf(call);
    release(world, call);
    const ms = waits(world, call, random);
    call.fail(lost(call.target));
    return `${titleOf(call)} ${
      tell(call, outcome)
    }, the answer is lost after ${ms} ms`;
  },
  /** It never arrives. */
  drop: (world, random) => {
    const call = struck(world, random);
    if (call === null || call.target === "sleep" || call.held) return null;
    const ms = waits(world, call, random);
    call.fail(lost(call.target));
    return `${titleOf(call)} is lost after ${ms} ms`;
  },
  /** It arrives later, when its worker has given it up. */
  stall: (world, random) => {
    const call = struck(world, random);
    if (call === null || call.target === "sleep" || call.held) return null;
    world.limbo.push(call);
    const ms = waits(world, call, random);
    call.fail(lost(call.target));
    return `${titleOf(call)} stalls; its worker gives up after ${ms} ms`;
  },
  /** It arrives now, and again later. */
  twice: (world, random) => {
    const call = struck(world, random);
    if (call === null || call.target === "sleep") return null;
    if (!mayRun(world, call)) return null;
    const again = { ...call, held: null, early: null };
    const told = `${titleOf(call)} ${finish(world, call)}`;
    world.limbo.push(again);
    return `${told}, and comes again later`;
  },
  /** It is carried out and keeps the chain's row locked. */
  hold: (world, random) => {
    const call = struck(world, random);
    if (call === null || call.target !== "source") return null;
    if (world.holder !== null || call.held) return null;
    world.beforeHolder = call.source!.look();
    call.held = outcomeOf(call);
    world.holder = call;
    return `${titleOf(call)} ${tell(call, call.held)}, and holds the lock`;
  },
  /** What stalled arrives. */
  land: (world, random) => {
    if (world.limbo.length === 0) return null;
    const at = random(world.limbo.length);
    const call = world.limbo[at]!;
    if (!mayRun(world, call)) return wait(world, call);
    world.limbo.splice(at, 1);
    world.count(`land ${call.target}`);
    const before = call.source?.look() ?? null;
    const told = `late: ${titleOf(call)} ${tell(call, outcomeOf(call))}`;
    const holds = call.source !== null && world.holder === null &&
      random(4) === 0;
    if (!holds) return told;
    world.beforeHolder = before;
    world.holder = call;
    return `${told}, and holds the lock`;
  },
  /** Somebody locks the chain's row, by hand. */
  grip: (world) => {
    if (world.holder !== null) return null;
    const { source } = world;
    world.beforeHolder = null;
    world.holder = {
      target: "source",
      by: 0,
      source,
      name: "lock",
      run: () => null,
      answer: () => {},
      fail: () => {},
      held: null,
      early: null,
    };
    return "the chain's row is locked";
  },
  /** What nobody waits for lets go of the chain's row. */
  ungrip: (world) => {
    const { holder } = world;
    const isAwaited = world.running().some(({ calls }) => calls.has(holder!));
    if (holder === null || isAwaited) return null;
    world.holder = null;
    return "the chain's row is free";
  },
  kill: (world, random) => {
    const call = struck(world, random);
    if (call === null) return null;
    const worker = world.workers[call.by - 1]!;
    kill(world, worker, random(4) > 0);
    return `worker ${worker.id} dies`;
  },
  write: (world, random) => {
    const { user } = sourceAt(world, random);
    const statement = makeStatement(world, user, random);
    const open = [...user.open.keys()];
    const name = open.length > 0 && random(3) === 0
      ? oneOf(random, open)
      : null;
    if (!user.run(statement, name)) return null;
    return `user${name === null ? "" : ` ${name}`}: ${shown(statement)}`;
  },
  /** A row that the replica may refuse. */
  bad: (world, random) => {
    const { user } = world.source;
    const id = String(1 + random(3));
    const row = { id, name: `bad v${++world.stamps}`, size: null, extra: null };
    const statement: UserStatement = user.rows.item!.has(`["${id}"]`)
      ? { kind: "update", table: "item", keys: [`["${id}"]`], set: row }
      : { kind: "insert", table: "item", rows: [row] };
    return user.run(statement) ? `user: ${shown(statement)}` : null;
  },
  /** A transaction that truncated a table stays open. */
  lock: (world, random) => {
    const { user } = sourceAt(world, random);
    const name = 3;
    const statement: UserStatement = {
      kind: "truncate",
      table: oneOf(random, Object.keys(USER_TABLES)),
    };
    if (!user.begin(name)) return null;
    if (!user.run(statement, name)) {
      user.end(name, "rollback");
      return null;
    }
    return `user ${name}: begin, ${shown(statement)}`;
  },
  begin: (world, random) => {
    const { user } = sourceAt(world, random);
    const name = 1 + random(2);
    return user.begin(name) ? `user ${name}: begin` : null;
  },
  end: (world, random) => {
    const { user } = sourceAt(world, random);
    const open = [...user.open.keys()];
    if (open.length === 0) return null;
    const name = oneOf(random, open);
    const how = random(4) === 0 ? "rollback" : "commit";
    user.end(name, how);
    return `user ${name}: ${how}`;
  },
  /** The source's clock, and with it every lease. */
  skew: (world, random) => {
    const ms = oneOf(random, [1, 1, 1, -1]) *
      oneOf(random, [20_000, 30_000, 3_600_000, 7_200_000]);
    world.skewMs += ms;
    return `the source's clock is off by ${world.skewMs / 1000} s`;
  },
  /** Everybody's clock. */
  later: (world, random) => {
    const ms = oneOf(random, [1_000, 30_000, 30_000, 4_000_000]);
    world.now += ms;
    return `${ms / 1000} s later`;
  },
  /** A failover that lost the replica's latest commits. */
  rewind: (world, random) => {
    const { commits } = world.replica;
    if (commits === 0) return null;
    const { rewindMax = 8 } = world.setup;
    const lose = random(12) === 0
      ? commits
      : 1 + random(Math.min(commits, rewindMax));
    world.replica.rewind(commits - lose);
    world.invariants.rewound(commits - lose);
    return `the replica loses ${lose} of ${commits} commits: ${
      rowShown(world)
    }`;
  },
  backup: (world) => {
    if (world.backups.length >= 3) return null;
    world.backups.push(world.source.backup());
    return `backup ${world.backups.length} of the source`;
  },
  restore: (world, random) => {
    if (world.backups.length === 0) return null;
    const at = random(world.backups.length);
    world.invariants.hasOtherPast = true;
    if (world.holder?.source === world.source) release(world, world.holder);
    world.restore(world.source, world.backups[at]!);
    world.schema = schemaOf(world.source);
    return `the source is restored from backup ${at + 1}`;
  },
  clone: (world, random) => {
    if (world.clone !== null || world.backups.length === 0) return null;
    world.invariants.hasOtherPast = true;
    world.makeClone(oneOf(random, world.backups));
    return "a clone of the source is made";
  },
  /** A hand in the replica. */
  drift: (world, random) => {
    const { row } = world.invariants;
    if (row === null) return null;
    const [table, key] = oneOf(random, KEYS);
    const [id, code] = JSON.parse(key) as string[];
    const where = table === "item"
      ? `id = ${id}`
      : `item = ${id} AND code = '${code}'`;
    const sql = oneOf(random, [
      `DELETE FROM ${table} WHERE ${where}`,
      table === "item"
        ? `UPDATE item SET name = 'drift', size = 7 WHERE ${where}`
        : `UPDATE part SET note = 'drift' WHERE ${where}`,
      table === "item"
        ? `INSERT OR IGNORE INTO item (id, name) VALUES (${id}, 'ghost')`
        : `INSERT OR IGNORE INTO part VALUES (${id}, '${code}', 'ghost')`,
    ]);
    if (!byHand(world, [sql])) return null;
    world.invariants.drift(table, key);
    return `a hand in the replica: ${sql}`;
  },
  /** The replica takes every row again. */
  lenient: (world) => {
    const drops = ["INSERT", "UPDATE"].map((event) =>
      `DROP TRIGGER strict_${event}`
    );
    if (!byHand(world, drops)) return null;
    redrive(world.source);
    return "the replica takes bad items again; redrive";
  },
  /** The replica takes no row whose name is "bad ..." any more. */
  strict: (world) => {
    if (world.invariants.row === null) return null;
    const isMade = byHand(
      world,
      ["INSERT", "UPDATE"].map((event) =>
        `CREATE TRIGGER IF NOT EXISTS strict_${event} BEFORE ${event} ON item
WHEN NEW.name LIKE 'bad%' BEGIN SELECT RAISE(ABORT, 'no'); END`
      ),
    );
    return isMade ? "a trigger in the replica refuses bad items" : null;
  },
  deploy: (world, random) => {
    const schema = random(3);
    if (!world.source.configure(SCHEMAS[schema]!, HASHES[schema]!)) return null;
    world.schema = schema;
    return `schema ${schema} is in force`;
  },
  /** A row is written past the queue: its triggers go and come again, or capture
   * fails and says so. */
  detach: (world, random) => {
    const { source } = world;
    const { user } = source;
    const statement = makeStatement(world, user, random);
    const { table } = statement;
    if (user.isTouched(table)) return null;
    const said = oneOf(random, ["", ", attached again", ", capture failed"]);
    world.invariants.isTold = said !== "";
    user.detached.add(table);
    user.run(statement);
    user.detached.delete(table);
    world.invariants.isTold = false;
    if (said === ", attached again") source.state.chain.walkWanted += 1;
    if (said === ", capture failed") {
      user.queue.set(user.nextMsgId++, { v: 2, table, walk: "XX000" });
    }
    if (said !== "") world.invariants.told();
    return `past the queue: ${shown(statement)}${said}`;
  },
  /** Somebody empties the archive. */
  purge: (world) => {
    const { archive } = world.source.state;
    if (archive.size === 0) return null;
    archive.clear();
    world.invariants.purged();
    return "the archive is emptied";
  },
  cap: (world) => world.source.capQueue() ? "the queue is over its cap" : null,
  send: (world, random) => {
    const { user } = world.source;
    const message = oneOf<Message>(random, [
      { v: 2, table: "nowhere", truncate: true },
      [1, 2],
      { v: 2, table: "item" },
      { v: 1, table: "item", columns: ["id", "name"], rows: [["1", "old"]] },
      { type: "DELETE", table: "part", old_record: { item: 1, code: "a" } },
    ]);
    user.queue.set(user.nextMsgId++, message);
    return `somebody sends ${JSON.stringify(message)}`;
  },
  operate: (world, random) => {
    const { source } = world;
    const { chain } = source.state;
    switch (random(8)) {
      case 0:
        redrive(source);
        return "redrive";
      case 6:
        chain.realtime = !chain.realtime;
        return `realtime ${chain.realtime}`;
      case 1:
        requestWalk(source, { kind: "backfill" });
        return "backfill is asked for";
      case 2:
        requestWalk(source, { kind: "verify", table: "part", repair: true });
        return "verify of part is asked for";
      case 3:
        chain.paused = !chain.paused;
        return chain.paused ? "pause" : "resume";
      case 4:
        chain.scrubRows = oneOf(random, [0, 1, 1000]);
        return `scrub ${chain.scrubRows}`;
      case 5:
        chain.replayWindowMs = oneOf(random, [0, 3_600_000]);
        return `the replay window is ${chain.replayWindowMs / 1000} s`;
      default:
        chain.refill = !chain.refill;
        return `refill ${chain.refill}`;
    }
  },
} satisfies Record<string, Deed>;

/** A call is answered as it should be. */
function step(world: World, random: Random): string | null {
  const call = pending(world, random);
  if (call === null) return null;
  if (!mayRun(world, call)) return wait(world, call);
  return `${titleOf(call)} ${finish(world, call)}`;
}

/** Makes a decision. */
export function decide(random: Random, profile: Profile): Action {
  return {
    kind: weighted(random, profile) ?? "step",
    chance: random(0x7fffffff),
  };
}

/** Carries a decision out; null where it could not be. */
export function act(world: World, { kind, chance }: Action): string | null {
  world.now += 1;
  const deed: Deed = KINDS[kind];
  const told = deed(world, randomOf(chance));
  if (told !== null) world.count(kind);
  return told;
}

/** Answers a call with what comes of it. */
export function finish(world: World, call: Call): string {
  const outcome = call.held ?? outcomeOf(call);
  release(world, call);
  deliver(call, outcome);
  return tell(call, outcome);
}

/** A worker dies: what it waits for is never answered, and may still land. */
export function kill(world: World, worker: Worker, mayLand: boolean): void {
  for (const call of worker.calls) {
    release(world, call);
    if (mayLand && call.target !== "sleep" && !call.held) {
      world.limbo.push(call);
    }
  }
  worker.state = "dead";
  worker.calls.clear();
}

/** Whether a call can be carried out now: the chain's row may be locked. */
export function mayRun(world: World, call: Call): boolean {
  return call.held !== null || call.name === "lease" ||
    call.source === null || world.holder?.source !== call.source;
}

/** A call waits for the chain's row. */
function wait(world: World, call: Call): string | null {
  if (call.early !== null) return null;
  call.early = world.beforeHolder ?? call.source!.look();
  world.count("wait");
  return `${titleOf(call)} waits for the lock`;
}

/** The lock goes with the call that holds it. */
export function release(world: World, call: Call): void {
  if (world.holder === call) world.holder = null;
}

function sourceAt(world: World, random: Random): SourceModel {
  return world.clone !== null && random(4) === 0 ? world.clone : world.source;
}

/** A call that its worker waits for. */
function pending(world: World, random: Random): Call | null {
  const running = world.running().filter(({ calls }) => calls.size > 0);
  if (running.length === 0) return null;
  return oneOf(random, [...oneOf(random, running).calls]);
}

/** A call that a fault may strike. */
function struck(world: World, random: Random): Call | null {
  const { faultsAt } = world.setup;
  if (faultsAt === undefined) return pending(world, random);
  const calls = world.running().flatMap((worker) => [...worker.calls])
    .filter(({ name }) => name === faultsAt);
  return calls.length === 0 ? null : oneOf(random, calls);
}

/** How long a worker waits for what does not come. */
function waits(world: World, call: Call, random: Random): number {
  const ms = oneOf(random, [0, 0, 3_000, 10_000]);
  world.workers[call.by - 1]!.waitedMs += ms;
  return ms;
}

/** Statements of somebody else's in the replica; false where they fail. */
function byHand(world: World, statements: readonly string[]): boolean {
  try {
    world.replica.batch(statements.map((sql) => ({ sql, args: [] })));
    return true;
  } catch {
    return false;
  }
}

function schemaOf(source: SourceModel): number {
  return HASHES.indexOf(source.state.schemas.at(-1)!.hash);
}

function started(worker: Worker, world: World): string {
  const { id, flow, schema, source } = worker;
  return `worker ${id} starts: ${JSON.stringify(flow)}, schema ${schema}${
    source === world.clone ? ", at the clone" : ""
  }`;
}

function rowShown({ invariants: { row } }: World): string {
  return row === null
    ? "nothing is left"
    : `it stands at ${row.position} of ${row.epoch}`;
}
