/**
 * What must hold after every step: the invariants of the protocol.
 *
 * @module
 */

import { SyncError } from "../../lib/errors.ts";
import type { Statement } from "../../lib/replica/sql.ts";
import {
  differences,
  type Excused,
  type Found,
  nameOf,
  readRow,
  readTables,
  type Row,
  schemaOf,
  stampOf,
} from "./found.ts";
import { isLook } from "./libsql.ts";
import { RowOrder } from "./order.ts";
import type { SourceModel } from "./source_model.ts";
import type { Fields, Version } from "./source_state.ts";
import type { Gone, Row as UserRow, Rows } from "./tables.ts";
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

/** A state of a row, as far as every schema has it. */
function stateOf(row: string, name: unknown, size: unknown): string {
  return `${row}: ${name ?? null}, ${size ?? null}`;
}

/** A batch that was handed out. */
interface Handed {
  readonly messages: readonly number[];
  /** What was set aside when it was first claimed. */
  readonly before: Excused;
  readonly source: SourceModel;
  readonly version: Version;
}

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
  readonly #order = new RowOrder((detail) =>
    this.#break("a row went back to an older state", detail)
  );
  /** Every state that a row was ever given, by any source. */
  readonly #states = new Set<string>();
  /** Rows that something else than the queue has changed. */
  readonly #drifted = new Set<string>();
  /** Those of them at the source that nothing has told it of. */
  readonly #silent = new Set<string>();
  /** Those of them in the replica. */
  readonly #byHand = new Set<string>();
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
    this.#order.goOnFrom(other.#order);
    for (const state of other.#states) this.#states.add(state);
    for (const batch of other.#appliedEver) this.#appliedEver.add(batch);
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
    const before = this.letters();
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

  /** Whether the source learns of what changes past the queue now: it excuses
   * nothing then. */
  isTold = false;

  /** A row of the source changed past the queue. */
  bypass(table: string, key: string): void {
    const name = nameOf(table, key);
    if (this.isTold) {
      this.#drifted.add(name);
      this.#order.forget(name);
      return;
    }
    this.#silent.add(name);
    this.#drift(name);
  }

  /** A row of the replica changed by somebody's hand. */
  drift(table: string, key: string): void {
    this.#byHand.add(nameOf(table, key));
    this.#drift(nameOf(table, key));
  }

  #drift(name: string): void {
    this.#drifted.add(name);
    this.#unmended.add(name);
    this.#order.forget(name);
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

  /** A row was given a state. */
  wrote(
    table: string,
    key: string,
    { name = null, size = null }: UserRow,
  ): void {
    this.#states.add(stateOf(nameOf(table, key), name, size));
  }

  /** No row is put together from several states. */
  #exists(row: Row, found: Found): void {
    const { columns } = schemaOf(row).tables.find(({ name }) =>
      name === "item"
    )!;
    const at = (column: string) =>
      columns.findIndex(({ name }) => name === column);
    for (const [key, cells] of found.get("item")!) {
      const name = nameOf("item", key);
      const state = stateOf(name, cells[at("name")], cells[at("size")]);
      if (!this.#drifted.has(name) && !this.#states.has(state)) {
        this.#break("a row that never was", state);
      }
    }
  }

  /** A row went at the source. */
  gone(gone: Gone): void {
    this.#order.gone(gone);
  }

  /** The replica lost commits. */
  rewound(commits: number): void {
    this.#isRewound = true;
    this.#past = this.#past.filter(({ commit }) => commit <= commits);
    this.#order.forgetAll();
    this.#unmended = new Set(this.#drifted);
    this.#row = readRow(this.world.replica);
  }

  /** The replica committed a batch. */
  committed(statements: readonly Statement[]): void {
    if (statements.every(isLook)) return;
    const before = this.#row;
    const row = readRow(this.world.replica);
    this.#row = row;
    if (row === null) return;
    const move = this.#moveOf(before, row);
    this.world.count(`replica ${move}`);
    if (move === "step") this.#step(row);
    // Rows of another source are no states of this one.
    if (
      move === "start" || move === "adopt" ||
      this.hasOtherPast && row.walk_done === 0
    ) this.#order.forgetAll();
    if (row.walk_done === 0 && row.walk_at === null) this.#walkBegins(row);
    const found = readTables(this.world.replica, row);
    if (!this.hasOtherPast || row.walk_done === 1) {
      this.#order.follow(found, this.letters());
    }
    if (row.walk_done === 0) return;
    this.#exists(row, found);
    if (row.drained === 1) {
      this.world.count("equal");
      this.#equal(row, found);
    } else {
      this.#contains(row, found);
    }
  }

  /** No walk is on: the one that closes begins after this, and mends. Of tables
   * that were created empty it does not ask for the replica's keys. */
  #walkBegins(row: Row): void {
    const fresh: string[] = JSON.parse(row.fresh);
    this.#unmended = new Set(
      [...this.#silent, ...this.#byHand].filter((name) =>
        fresh.includes(name.split(" ")[0]!)
      ),
    );
  }

  /** The replica's row. */
  get row(): Row | null {
    return this.#row;
  }

  /** How the replica differs from what the source holds, but for open letters. */
  differences({ user }: SourceModel): string[] {
    const row = this.#row!;
    return differences(user.rows, readTables(this.world.replica, row), {
      excused: this.letters(),
      schema: schemaOf(row),
    });
  }

  /** Rows with an open dead letter, or parked in a batch that is open. A letter
   * without a key excuses no row: what a failed capture left out is walked. */
  letters(): Excused {
    const keys = new Set<string>();
    const excuse = ({ table, key }: Fields) => {
      if (typeof table === "string" && Array.isArray(key)) {
        keys.add(nameOf(table, JSON.stringify(key)));
      }
    };
    for (const { state } of this.world.sources()) {
      for (const { message } of state.letters) excuse(message);
      for (const version of state.batches) {
        if (version.state === "pending") version.parked.forEach(excuse);
      }
    }
    return keys;
  }

  /** The harness itself failed. */
  fail(error: unknown): void {
    this.broken ??= error as Error;
  }

  #break(rule: string, detail: string): void {
    this.broken ??= new Violation(rule, detail);
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

  /** Whatever the row's snapshot saw is in the replica, or something newer. */
  #contains(row: Row, found: Found): void {
    const rows = this.#snapshots.get(row.snapshot!);
    if (rows === undefined || this.hasOtherPast) return;
    const letters = this.letters();
    const before = this.#handed.get(row.batch)?.before;
    for (const name in rows) {
      for (const [key, expected] of rows[name]!) {
        const there = found.get(name)?.get(key);
        const stamp = there === undefined ? null : stampOf(there);
        const seen = stampOf(Object.values(expected));
        const id = nameOf(name, key);
        const isExcused = letters.has(id) || before?.has(id) ||
          this.#unmended.has(id);
        if (isExcused || stamp === null || seen === null) continue;
        if (stamp < seen) {
          this.#break(
            "a row is older than the row's snapshot",
            `${id}: state ${stamp}, and ${row.snapshot} saw ${seen}`,
          );
        }
      }
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
    const now = this.letters();
    const { before, version } = handed;
    const excused = new Set([...now, ...before, ...this.#unmended]);
    for (const { table, key } of version.parked) {
      if (Array.isArray(key)) {
        excused.add(nameOf(table as string, JSON.stringify(key)));
      }
    }
    const schema = schemaOf(row);
    const [first] = differences(rows, found, { excused, schema });
    if (first !== undefined) {
      this.#break(
        "drained and walked, and not equal",
        `position ${row.position}, snapshot ${row.snapshot}: ${first}`,
      );
    }
  }
}
