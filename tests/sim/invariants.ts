/**
 * What must hold after every step: the invariants of the protocol, and the
 * order of a row's states.
 *
 * @module
 */

import { convert } from "../../lib/convert.ts";
import { SyncError } from "../../lib/errors.ts";
import type { ReplicaRow } from "../../lib/replica_row.ts";
import { typeOf } from "../../lib/schema.ts";
import type { Statement } from "../../lib/sql.ts";
import { HASHES, SCHEMAS } from "../contract/source.ts";
import { isLook } from "./libsql.ts";
import type { SourceModel } from "./source_model.ts";
import type { Fields, Version } from "./source_state.ts";
import type { Gone, Rows } from "./tables.ts";
import type { Worker, World } from "./world.ts";

/** A promise that was broken. */
export class Violation extends Error {
  /**
   * @param rule The rule, in a few words that stay the same.
   * @param detail What was found.
   */
  constructor(readonly rule: string, detail: string) {
    super(`${rule}: ${detail}`);
  }
}

/** What the replica's tables hold, by table and key. */
export type Found = Map<string, Map<string, (string | number | null)[]>>;

/** Rows that need not be equal: keys, and whole tables. */
interface Excused {
  readonly keys: ReadonlySet<string>;
  readonly tables: ReadonlySet<string>;
}

/** A batch that was handed out. */
interface Handed {
  readonly messages: readonly number[];
  /** What was set aside when it was first claimed. */
  readonly before: Excused;
  readonly source: SourceModel;
  readonly version: Version;
}

/** Columns of every schema. */
const COMMON = ["id", "name", "item", "code", "note"];
const NAMES = ["item", "part"];
const ROW =
  "SELECT epoch, position, batch, prev, from_epoch, walk_gen, walk_at, walk_done, drained, snapshot, schema_hash, rebuilding, fresh FROM _libsql_sync";

type Row = Pick<
  ReplicaRow,
  | "epoch"
  | "position"
  | "batch"
  | "prev"
  | "from_epoch"
  | "walk_gen"
  | "walk_at"
  | "walk_done"
  | "drained"
  | "snapshot"
  | "schema_hash"
  | "rebuilding"
  | "fresh"
>;

/** Watches a world. */
export class Invariants {
  /** What each snapshot saw. */
  readonly #snapshots = new Map<string, Rows>();
  readonly #handed = new Map<string, Handed>();
  /** Batches that the replica ever had. */
  readonly #appliedEver = new Set<string>();
  /** Batches in the replica's present past, with the commit that brought each. */
  #past: { commit: number; batch: string }[] = [];
  #row: Row | null = null;
  /** The newest state of each row that the replica had in this epoch. */
  #known = new Map<string, number>();
  readonly #gone = new Map<string, number[]>();
  /** Rows that something else than the queue has changed. */
  readonly #drifted = new Set<string>();
  /** Those of them that nothing has told the source of. */
  readonly #silent = new Set<string>();
  /** Those of them that no walk that is open has to mend. */
  #unmended = new Set<string>();
  /** Whether messages of a recorded batch may be gone. */
  mayTrim = false;
  #passedMs = 0;
  #isRewound = false;
  /** Whether another past, or another source, is about. */
  hasOtherPast = false;
  /** The first violation found, or what broke the simulation itself. */
  broken: Error | null = null;

  constructor(readonly world: World) {}

  /** Goes on from where another world came to rest. */
  goOnFrom(other: Invariants): void {
    const row = other.#row!;
    this.#row = row;
    this.#snapshots.set(row.snapshot!, other.#snapshots.get(row.snapshot!)!);
    this.#handed.set(row.batch, other.#handed.get(row.batch)!);
    this.#known = new Map(other.#known);
    for (const batch of other.#appliedEver) this.#appliedEver.add(batch);
    for (const [name, stamps] of other.#gone) this.#gone.set(name, [...stamps]);
  }

  /** A snapshot was taken. */
  snapshot(text: string, rows: Rows): void {
    this.#snapshots.set(text, rows);
  }

  /** A batch was handed out. */
  handedOut(
    source: SourceModel,
    version: Version,
    messages: readonly number[],
  ): void {
    if (this.#handed.has(version.batch)) return;
    const before = this.#letters();
    this.#handed.set(version.batch, { messages, before, source, version });
  }

  /** Messages left the queue. */
  acked(version: Version, settled: readonly number[]): void {
    if (!this.#appliedEver.has(version.batch)) {
      this.#break(
        "a message left the queue before the replica had it",
        `batch ${version.batch} was settled and never applied`,
      );
    }
    const { messages } = this.#handed.get(version.batch)!;
    if (settled.join() !== messages.join()) {
      this.#break(
        "a message left the queue before the replica had it",
        `batch ${version.batch} held ${messages}, and ${settled} left`,
      );
    }
  }

  /** A source answered. */
  asked(source: SourceModel): void {
    for (const version of source.state.batches) {
      if (version.state !== "pending") continue;
      const missing = version.msgIds.filter((id) => !source.user.queue.has(id));
      if (missing.length > 0) {
        this.#break(
          "a batch holds messages that left the queue",
          `batch ${version.batch} at ${version.position} holds ${missing}`,
        );
      }
    }
  }

  /** Time passed at the source; in half of the replay window nothing is trimmed. */
  passed(ms: number): void {
    this.#passedMs += Math.max(0, ms);
    if (this.#passedMs > 1_800_000) this.mayTrim = true;
  }

  /** A new epoch began. */
  epoch(reason: string): void {
    this.world.count(`epoch: ${reason.replace(/\d+/g, "n")}`);
    // A claim that stalls may prove what the replica has lost meanwhile.
    const isFalse = reason.includes("not on record")
      ? !this.hasOtherPast && !this.#isRewound
      : reason.includes("cannot be repeated")
      ? !this.mayTrim && !this.hasOtherPast
      : reason.includes("taken over") && !this.hasOtherPast;
    if (isFalse) this.#break("a new epoch began for nothing", reason);
  }

  /** A flow failed. */
  failed(worker: Worker, error: unknown): void {
    if (!(error instanceof SyncError) || error.code === "source_failed") {
      const text = error instanceof Error ? error.stack ?? "" : String(error);
      this.#break("a flow failed in an unknown way", text);
      return;
    }
    const isFalse = error.code === "replica_ahead" ||
      error.code === "replica_foreign";
    if (isFalse && !this.hasOtherPast) {
      this.#break("a false alarm", `worker ${worker.id} ended ${error.code}`);
    }
  }

  /** A row changed past the queue, of the replica or the source. */
  drift(table: string, key: string): void {
    const name = nameOf(table, key);
    this.#drifted.add(name);
    this.#silent.add(name);
    this.#unmended.add(name);
    this.#known.delete(name);
  }

  /** Whether a walk alone makes the replica equal: nothing was promised yet, or
   * something changed past the queue. */
  needsWalk(): boolean {
    return this.#row?.walk_done !== 1 || this.#unmended.size > 0;
  }

  /** The source was told that something went past the queue. */
  told(): void {
    this.#silent.clear();
  }

  /** A row went at the source. */
  gone({ table, key, stamp }: Gone): void {
    const name = nameOf(table, key);
    const stamps = this.#gone.get(name);
    if (stamps === undefined) this.#gone.set(name, [stamp]);
    else stamps.push(stamp);
  }

  /** The replica lost commits. */
  rewound(commits: number): void {
    this.#isRewound = true;
    this.#past = this.#past.filter(({ commit }) => commit <= commits);
    this.#known = new Map();
    this.#unmended = new Set(this.#drifted);
    this.#row = this.#read();
  }

  /** The replica committed a batch. */
  committed(statements: readonly Statement[]): void {
    if (statements.every(isLook)) return;
    const before = this.#row;
    const row = this.#read();
    this.#row = row;
    if (row === null) return;
    const move = this.#moveOf(before, row);
    this.world.count(`replica ${move}`);
    if (move === "step") this.#step(row);
    // Rows of another source are no states of this one.
    if (
      move === "start" || move === "adopt" ||
      this.hasOtherPast && row.walk_done === 0
    ) this.#known = new Map();
    if (row.walk_done === 0 && row.walk_at === null) this.#walkBegins(row);
    const found = this.found();
    if (!this.hasOtherPast || row.walk_done === 1) this.#forward(found);
    if (row.drained === 1 && row.walk_done === 1) {
      this.world.count("equal");
      this.#equal(row, found);
    }
  }

  /** No walk is on: the one that closes begins after this, and mends. Of tables
   * that were created empty it does not ask for the replica's keys. */
  #walkBegins(row: Row): void {
    const fresh: string[] = JSON.parse(row.fresh);
    this.#unmended = new Set(
      [...this.#silent].filter((name) => fresh.includes(name.split(" ")[0]!)),
    );
  }

  /** What the replica's tables hold. */
  found(): Found {
    const found: Found = new Map();
    const rebuilding: string[] = JSON.parse(this.#row?.rebuilding ?? "[]");
    for (const { name, key, columns: all } of this.#schema().tables) {
      // Readers see the table as it was: some of its columns.
      const columns = rebuilding.includes(name)
        ? all.filter((column) => COMMON.includes(column.name))
        : all;
      const rows = new Map<string, (string | number | null)[]>();
      const cells = this.world.replica.read(
        `SELECT ${columns.map((column) => column.name).join()} FROM ${name}`,
      );
      const at = key.map((part) =>
        columns.findIndex((column) => column.name === part)
      );
      for (const row of cells) {
        const made = JSON.stringify(at.map((index) => String(row[index])));
        rows.set(made, row as (string | number | null)[]);
      }
      found.set(name, rows);
    }
    return found;
  }

  /** The replica's row. */
  get row(): Row | null {
    return this.#row;
  }

  /** How the replica differs from rows, but for what is excused. */
  differences(rows: Rows, found: Found, excused: Excused): string[] {
    const differences: string[] = [];
    for (const table of this.#schema().tables) {
      const { name } = table;
      if (excused.tables.has(name)) continue;
      const there = found.get(name)!;
      for (const key of new Set([...rows[name]!.keys(), ...there.keys()])) {
        if (excused.keys.has(nameOf(name, key))) continue;
        const row = rows[name]!.get(key);
        const expected = row === undefined
          ? "nothing"
          : table.columns.map((column) =>
            stored(row[column.name] ?? null, typeOf(table, column.name))
          ).join();
        const cells = there.get(key);
        const actual = cells?.map(shownCell).join() ?? "nothing";
        if (expected !== actual) {
          differences.push(
            `${name} ${key}: expected ${expected}, found ${actual}`,
          );
        }
      }
    }
    return differences;
  }

  /** Rows with an open dead letter, or set aside in a batch that is open. */
  #letters(): Excused {
    const keys = new Set<string>();
    const tables = new Set<string>();
    const excuse = ({ table, key }: Fields) => {
      if (typeof table !== "string") return;
      if (Array.isArray(key)) keys.add(nameOf(table, JSON.stringify(key)));
      else tables.add(table);
    };
    for (const { state } of this.world.sources()) {
      for (const { message } of state.letters) excuse(message);
      for (const version of state.batches) {
        if (version.state === "pending") version.parked.forEach(excuse);
      }
    }
    return { keys, tables };
  }

  /** Rows with an open dead letter at the source. */
  letters(): Excused {
    return this.#letters();
  }

  /** The harness itself failed. */
  fail(error: unknown): void {
    this.broken ??= error as Error;
  }

  #break(rule: string, detail: string): void {
    this.broken ??= new Violation(rule, detail);
  }

  #schema() {
    const at = this.#row === null ? -1 : HASHES.indexOf(this.#row.schema_hash);
    return at < 0 ? { tables: [] } : SCHEMAS[at]!;
  }

  #read(): Row | null {
    const [cells] = this.world.replica.read(ROW);
    if (cells === undefined) return null;
    const [epoch, position, batch, prev, from_epoch, walk_gen] = cells;
    const [
      walk_at,
      walk_done,
      drained,
      snapshot,
      schema_hash,
      rebuilding,
      fresh,
    ] = cells.slice(6);
    return {
      epoch,
      position,
      batch,
      prev,
      from_epoch,
      walk_gen,
      walk_at,
      walk_done,
      drained,
      snapshot,
      schema_hash,
      rebuilding,
      fresh,
    } as Row;
  }

  /** Which of the moves it was: there are no others. */
  #moveOf(before: Row | null, row: Row): string {
    if (before === null) {
      const isStart = row.position === 0 && row.batch === row.epoch &&
        row.drained === 0 && row.walk_done === 0;
      if (!isStart) this.#break("the chain was broken", "at its start");
      return "start";
    }
    if (row.epoch !== before.epoch) {
      const isAdopt = row.from_epoch === before.epoch && row.position === 0 &&
        row.batch === row.epoch && row.drained === 0 && row.walk_done === 0;
      if (!isAdopt || this.#isOlder(row.epoch, before.epoch)) {
        this.#break(
          "the chain was broken",
          `epoch ${before.epoch} became ${row.epoch}`,
        );
      }
      return "adopt";
    }
    if (row.batch === before.batch && row.position === before.position) {
      return row.schema_hash === before.schema_hash ? "none" : "alter";
    }
    const isStep = row.position === before.position + 1 &&
      row.prev === before.batch && row.schema_hash === before.schema_hash &&
      !this.#past.some(({ batch }) => batch === row.batch);
    if (!isStep) {
      this.#break(
        "the chain was broken",
        `${before.position} (${before.batch}) became ${row.position} (${row.batch}, after ${row.prev})`,
      );
    }
    return "step";
  }

  /** Whether an epoch came before another one at the same source. */
  #isOlder(epoch: string, than: string): boolean {
    return this.world.sources().some(({ state }) => {
      const at = state.epochs.findIndex((other) => other.epoch === epoch);
      const after = state.epochs.findIndex((other) => other.epoch === than);
      return at >= 0 && after > at;
    });
  }

  #step(row: Row): void {
    this.#appliedEver.add(row.batch);
    this.#past.push({
      commit: this.world.replica.commits,
      batch: row.batch,
    });
    if (!this.#handed.has(row.batch)) {
      this.#break("a batch was applied that nobody handed out", row.batch);
    }
  }

  /** No row goes back to an older state, once known. */
  #forward(found: Found): void {
    for (const name of NAMES) {
      const rows = found.get(name);
      if (rows === undefined) continue;
      for (const [key, cells] of rows) {
        const stamp = stampOf(cells);
        if (stamp === null) continue;
        const known = this.#known.get(nameOf(name, key)) ?? 0;
        if (stamp < known) {
          this.#break(
            "a row went back to an older state",
            `${name} ${key}: state ${stamp} after ${known}`,
          );
        }
        this.#known.set(nameOf(name, key), stamp);
      }
    }
    const letters = this.#letters();
    for (const [name, known] of this.#known) {
      const at = name.indexOf(" ");
      if (found.get(name.slice(0, at))?.has(name.slice(at + 1)) ?? true) {
        continue;
      }
      // Set aside, it may be missing.
      if (letters.keys.has(name) || letters.tables.has(name.slice(0, at))) {
        this.#known.delete(name);
        continue;
      }
      const gone = this.#gone.get(name) ?? [];
      if (gone.includes(known)) continue;
      const next = gone.find((stamp) => stamp > known);
      if (next === undefined) {
        this.#break(
          "a row went back to an older state",
          `${name}: nothing after state ${known}, and it never went`,
        );
        continue;
      }
      this.#known.set(name, next);
    }
  }

  /** Drained and walked means equal to the source at that snapshot. */
  #equal(row: Row, found: Found): void {
    const rows = this.#snapshots.get(row.snapshot!);
    const handed = this.#handed.get(row.batch);
    if (rows === undefined || handed === undefined) {
      this.#break("drained and walked", `no such snapshot: ${row.snapshot}`);
      return;
    }
    const now = this.#letters();
    const { before, version } = handed;
    const keys = new Set([...now.keys, ...before.keys, ...this.#unmended]);
    const tables = new Set([...now.tables, ...before.tables]);
    for (const { table, key } of version.parked) {
      if (Array.isArray(key)) {
        keys.add(nameOf(table as string, JSON.stringify(key)));
      } else if (typeof table === "string") tables.add(table);
    }
    const [first] = this.differences(rows, found, { keys, tables });
    if (first !== undefined) {
      this.#break(
        "drained and walked, and not equal",
        `position ${row.position}, snapshot ${row.snapshot}: ${first}`,
      );
    }
  }
}

function nameOf(table: string, key: string): string {
  return `${table} ${key}`;
}

/** A cell as the replica stores it; what it cannot hold is never equal. */
function stored(cell: string | null, type: ReturnType<typeof typeOf>): string {
  try {
    const value = convert(cell, type);
    return value === null || type === "TEXT" || type === "JSON"
      ? shownCell(value)
      : shownCell(Number(value));
  } catch {
    return `unfit ${cell}`;
  }
}

/** A cell with its type: 5 is not '5'. */
function shownCell(cell: unknown): string {
  return typeof cell === "string" ? `'${cell}'` : String(cell);
}

/** The number of the write that made a row; null where none of ours did. */
function stampOf(cells: readonly unknown[]): number | null {
  for (const cell of cells) {
    const stamp = typeof cell === "string" && /^(?:bad )?v(\d+)$/.exec(cell);
    if (stamp) return Number(stamp[1]);
  }
  return null;
}
