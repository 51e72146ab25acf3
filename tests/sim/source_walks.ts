/**
 * The section "Walk" of the migration, in memory: which walk is on, its pages,
 * and what they found.
 *
 * @module
 */

import type { Json } from "../../lib/chain/json.ts";
import type { Table } from "../../lib/schema.ts";
import type { SourceModel } from "./source_model.ts";
import { type AskedWalk, type Fields, isSame } from "./source_state.ts";
import { isUnreadable, keyOf, type Row, UNREADABLE } from "./tables.ts";

/** libsql_sync.next_walk */
export function nextWalk(
  source: SourceModel,
  at: Fields,
  mayScrub: boolean,
): AskedWalk | null {
  const { state } = source;
  const { chain, walks } = state;
  const atGen = Number(at.walk_gen);
  let walk = walks.find(({ walkGen }) =>
    walkGen === atGen && at.walk_at !== null
  );
  if (walk === undefined || walk.kind === "scrub") {
    walk = walks
      .filter(({ walkGen, kind }) =>
        walkGen > atGen &&
        (kind !== "scrub" ||
          mayScrub && chain.scrubRows > 0 && at.walk_done === 1)
      )
      .toSorted((a, b) => a.walkGen - b.walkGen)[0] ?? walk;
  }
  if (walk === undefined) {
    const everything = source.tableNames();
    const isVain = walks.some((other) =>
      other.kind === "backfill" && other.endedAt !== null &&
      other.endedAt > source.clock() - 900_000 && other.walkGen === atGen &&
      isSame(other.tables, everything) &&
      Object.values(other.found).some((found) => {
        const { failed } = found as Fields;
        return failed !== null && failed !== "42P01";
      })
    );
    if (at.walk_done === 0 && chain.refill && !isVain) {
      walk = ask(source, { kind: "backfill", tables: everything });
    } else if (at.walk_done === 1 && chain.scrubRows > 0 && mayScrub) {
      walk = ask(source, { kind: "scrub", tables: everything });
    }
  }
  if (walk?.kind === "scrub" && (!mayScrub || chain.scrubRows === 0)) {
    return null;
  }
  return walk ?? null;
}

/** Records a walk. */
export function ask(
  source: SourceModel,
  walk: {
    kind: AskedWalk["kind"];
    tables: readonly string[];
    keys?: readonly Json[];
    repair?: boolean;
    closes?: boolean;
  },
): AskedWalk {
  const { kind, tables, keys = null, repair = true, closes = true } = walk;
  const asked: AskedWalk = {
    walkGen: source.state.nextWalkGen++,
    kind,
    tables,
    keys,
    repair,
    closes,
    lettersUntil: newestLetter(source),
    endedAt: null,
    found: {},
  };
  source.state.walks.push(asked);
  return asked;
}

/** libsql_sync.next_place */
function nextPlace(walk: AskedWalk, at: Fields, place: Fields): Fields | null {
  const fresh = JSON.parse(at.fresh as string) as string[];
  if (place.half === "forward" && !fresh.includes(place.table as string)) {
    return { table: place.table!, half: "back" };
  }
  const next = walk.tables[walk.tables.indexOf(place.table as string) + 1];
  return next === undefined ? null : { table: next, half: "forward" };
}

/** libsql_sync.place_of */
function placeOf(source: SourceModel, walk: AskedWalk, at: Fields): Fields {
  const place = at.walk_gen === walk.walkGen && at.walk_at !== null
    ? JSON.parse(at.walk_at as string) as Fields
    : null;
  const table = source.tables().find(({ name }) => name === place?.table);
  const length = place?.half === "keys" ? 1 : table?.key.length;
  const isOfWalk = place !== null &&
    walk.tables.includes(place.table as string) &&
    (place.half === "keys") === (walk.keys !== null) &&
    (table === undefined || !Array.isArray(place.after) ||
      place.after.length === length);
  return isOfWalk ? place : {
    table: walk.tables[0]!,
    half: walk.keys === null ? "forward" : "keys",
  };
}

/** libsql_sync.hold_page */
export function holdPage(
  source: SourceModel,
  walk: AskedWalk,
  at: Fields,
): boolean {
  return !source.user.isLocked(placeOf(source, walk, at).table as string);
}

/** libsql_sync.read_page */
export function page(
  source: SourceModel,
  walk: AskedWalk,
  options: { at: Fields; request: Fields; isCountable: boolean },
): Fields | null {
  const { at, request, isCountable } = options;
  const { scrubRows } = source.state.chain;
  const rowsMax = walk.kind === "scrub"
    ? Math.min(Number(request.rows), scrubRows)
    : Number(request.rows);
  let place = placeOf(source, walk, at);
  const unread = Number(place.unread ?? 0);
  const starts = !("after" in place) && place.half !== "back";
  const name = place.table as string;
  const listed = source.tables().find((table) => table.name === name);
  let failed: string | null = null;
  let found: Looked = NOTHING;
  /** Whether there is another number of rows there, so that its keys are needed. */
  let isCounted = false;
  if (listed === undefined) {
    failed = "42P01";
    place = { table: name, half: "back" };
  } else if (place.half === "back") {
    const keys = request.keys as Fields | null;
    if (keys === null || keys.at !== at.walk_at) return null;
    if (keys.count !== undefined) {
      const isAside = source.state.letters.some(({ message }) =>
        (message.table ?? name) === name
      );
      isCounted = !isCountable ||
        isAside && source.faults.countAside !== true ||
        source.user.rows[name]!.size !== keys.count;
      found = { ...NOTHING, last: !isCounted };
    } else found = lookBack(source, listed, keys);
  } else {
    found = place.half === "keys"
      ? lookUp(source, listed, { walk, place, rowsMax })
      : lookForward(source, listed, { place, rowsMax });
  }
  const next = found.last
    ? nextPlace(walk, at, place)
    : { table: name, half: place.half!, after: found.after };
  const upto = next === null ? null : {
    ...next,
    unread: unread + (failed === null || failed === "42P01" ? 0 : 1),
    ...(isCounted ? { counted: true } : {}),
    ...(walk.kind === "scrub" ? { rows: scrubRows } : {}),
  };
  return {
    walk_gen: walk.walkGen,
    kind: walk.kind,
    repair: walk.repair,
    table: name,
    half: place.half!,
    starts,
    rows: found.rows,
    last: found.last,
    large: false,
    ...(failed === null ? {} : { failed }),
    columns: found.columns,
    ghosts: found.ghosts,
    broken: found.broken,
    open: openKeys(source, walk, name),
    upto: upto === null ? null : JSON.stringify(upto),
    closes: upto === null && walk.closes && unread === 0 &&
      source.tableNames().every((table) => walk.tables.includes(table)),
    cells: found.cells,
  };
}

/** What a page found. */
interface Looked {
  readonly rows: number;
  readonly last: boolean;
  readonly after: Json;
  readonly columns: readonly string[];
  readonly cells: Json[];
  readonly ghosts: Json[];
  /** Keys of rows that cannot be read. */
  readonly broken: Json[];
}

const NOTHING: Looked = {
  rows: 0,
  last: true,
  after: null,
  columns: [],
  cells: [],
  ghosts: [],
  broken: [],
};

/** Keys of the replica that the source does not have. */
function lookBack(source: SourceModel, table: Table, keys: Fields): Looked {
  const asked = keys.keys as string[][];
  const rows = source.user.rows[table.name]!;
  return {
    ...NOTHING,
    rows: asked.length,
    last: keys.last as boolean,
    after: keys.after!,
    ghosts: asked.filter((key) => !rows.has(JSON.stringify(key))),
  };
}

/** Rows of the keys a walk was asked for. */
function lookUp(
  source: SourceModel,
  table: Table,
  { walk, place, rowsMax }: { walk: AskedWalk; place: Fields; rowsMax: number },
): Looked {
  const rows = source.user.rows[table.name]!;
  const columns = table.columns.map(({ name }) => name);
  const done = Number((place.after as string[] | undefined)?.[0] ?? 0);
  const keys = walk.keys!.slice(done, done + Math.min(rowsMax, 200));
  const cells: Json[] = [];
  const ghosts: Json[] = [];
  const broken: Json[] = [];
  for (const key of keys) {
    const row = rows.get(JSON.stringify(key));
    if (row === undefined) ghosts.push(key);
    else if (isUnreadable(row)) broken.push({ key, reason: UNREADABLE });
    else cells.push(columns.map((name) => row[name] ?? null));
  }
  const last = done + keys.length >= walk.keys!.length;
  const after = [String(done + keys.length)];
  return { rows: keys.length, last, after, columns, cells, ghosts, broken };
}

/** The next rows in the order of the source's key. */
function lookForward(
  source: SourceModel,
  table: Table,
  { place, rowsMax }: { place: Fields; rowsMax: number },
): Looked {
  const columns = table.columns.map(({ name }) => name);
  const after = (place.after ?? null) as string[] | null;
  const ahead = inOrder(source, table.name).filter((row) =>
    after === null ||
    compareKeys(table.key.map((name) => row[name]!), after) > 0
  );
  const rows = ahead.slice(0, rowsMax);
  const newest = rows.at(-1);
  return {
    ...NOTHING,
    rows: rows.length,
    last: ahead.length <= rowsMax,
    after: newest === undefined ? null : table.key.map((name) => newest[name]!),
    columns,
    cells: rows.filter((row) => !isUnreadable(row)).map((row) =>
      columns.map((name) => row[name] ?? null)
    ),
    broken: rows.filter(isUnreadable).map((row) => ({
      key: table.key.map((name) => row[name]!),
      reason: UNREADABLE,
    })),
  };
}

function inOrder(source: SourceModel, table: string): Row[] {
  const keys = (row: Row) => JSON.parse(keyOf(table, row)) as string[];
  return [...source.user.rows[table]!.values()].sort((a, b) =>
    compareKeys(keys(a), keys(b))
  );
}

/** The first column of every key is a number, a second one is text. */
function compareKeys(a: readonly string[], b: readonly string[]): number {
  return Number(a[0]) - Number(b[0]) ||
    ((a[1] ?? "") < (b[1] ?? "") ? -1 : (a[1] ?? "") > (b[1] ?? "") ? 1 : 0);
}

/** libsql_sync.open_keys */
function openKeys(source: SourceModel, walk: AskedWalk, table: string): Json[] {
  return source.state.letters
    .filter(({ message }) =>
      message.table === table && Array.isArray(message.key)
    )
    .map(({ message, id }) => ({
      key: message.key!,
      skip: isRefused(message) &&
        (walk.kind !== "redrive" || id > walk.lettersUntil),
    }));
}

/** libsql_sync.note_walked */
export function noteWalked(
  source: SourceModel,
  walked: readonly Fields[],
  at: Fields | null,
): void {
  const { state } = source;
  for (const { walk_gen, table, ...found } of walked) {
    const walk = state.walks.find(({ walkGen }) => walkGen === walk_gen);
    if (walk === undefined) continue;
    walk.found = { ...walk.found, [table as string]: found };
    if (found.ended && table === walk.tables.at(-1)) {
      walk.endedAt = source.clock();
    }
    if (!found.ended || !walk.repair || found.failed !== null) continue;
    if (at === null || !isThrough(walk, table as string, at)) continue;
    const healed = state.letters.filter(({ message, id }) =>
      message.table === table && id <= walk.lettersUntil &&
      (walk.kind === "redrive" || !isRefused(message)) &&
      (walk.keys === null ||
        walk.keys.some((key) => isSame(key, message.key)))
    );
    state.letters = state.letters.filter((letter) => !healed.includes(letter));
    if (healed.length > 0) {
      source.options.events.healed(healed.map(({ id }) => id));
      state.chain.lettersClosed = Math.max(
        state.chain.lettersClosed,
        at.position as number,
      );
    }
  }
}

/** Whether the replica's row says that a walk came through a table. */
function isThrough(walk: AskedWalk, table: string, at: Fields): boolean {
  const walkGen = at.walk_gen as number;
  if (walkGen !== walk.walkGen) return walkGen > walk.walkGen;
  if (at.walk_at === null) return true;
  const place = JSON.parse(at.walk_at as string) as Fields;
  const here = walk.tables.indexOf(place.table as string);
  return here >= 0 && here > walk.tables.indexOf(table);
}

/** What the replica itself refused. */
function isRefused({ reason }: Fields): boolean {
  return (reason as string).startsWith("libSQL refused");
}

/** libsql_sync.newest_letter */
export function newestLetter({ state }: SourceModel): number {
  return Math.max(0, ...state.letters.map(({ id }) => id));
}

/** libsql_sync.request_walk */
export function requestWalk(source: SourceModel, request: Fields): Fields {
  const { chain, walks } = source.state;
  const everything = source.tableNames();
  const asked = request.table == null ? everything : [request.table as string];
  const repair = request.kind === "backfill" || request.repair === true;
  if (!asked.every((name) => everything.includes(name))) {
    return { do: "unknown_table" };
  }
  if (request.kind === "backfill") chain.refill = true;
  const { walk_gen = 0, walk_at = null } = chain.seen ?? {};
  const since = Number(walk_gen) - (walk_at === null ? 0 : 1);
  const same = walks
    .filter((walk) =>
      walk.kind === request.kind && isSame(walk.tables, asked) &&
      walk.repair === repair && walk.keys === null && walk.walkGen > since
    )
    .toSorted((a, b) => a.walkGen - b.walkGen)[0];
  const walk = same ?? ask(source, {
    kind: request.kind as AskedWalk["kind"],
    tables: asked,
    repair,
    closes: repair && isSame(asked, everything),
  });
  return { do: "requested", walk_gen: walk.walkGen, tables: walk.tables };
}

/** libsql_sync.redrive: tries every dead letter again. */
export function redrive(source: SourceModel): void {
  for (const table of source.tableNames()) {
    const of = source.state.letters.filter(({ message }) =>
      message.table === table
    );
    const keys = of.map(({ message }) => message.key!).filter(Array.isArray);
    if (keys.length > 0) askRedrive(source, table, keys);
    if (of.some(({ message }) => !Array.isArray(message.key))) {
      requestWalk(source, { kind: "backfill", table });
    }
  }
}

/** Asks for rows of one table to be tried again. */
export function askRedrive(
  source: SourceModel,
  table: string,
  keys: readonly Json[],
): void {
  const sorted = keys.toSorted();
  ask(source, {
    kind: "redrive",
    tables: [table],
    keys: sorted,
    closes: false,
  });
}
