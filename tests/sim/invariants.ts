/**
 * What must hold after every step: the invariants of the protocol.
 *
 * @module
 */

import { SyncError } from "../../lib/errors.ts";
import type { Statement } from "../../lib/replica/sql.ts";
import {
  columnsOf,
  differences,
  type Excused,
  type Found,
  isStorable,
  isStored,
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
import type { Fields, Letter, Version } from "./source_state.ts";
import {
  type Gone,
  isUnreadable,
  type Row as UserRow,
  type Rows,
  USER_TABLES,
} from "./tables.ts";
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

/** A version that was handed out. */
interface Handed {
  readonly version: Version;
  readonly msgIds: readonly number[];
  /** Rows with an open dead letter at that time. */
  readonly letters: Excused;
  /** Rows that it sends, or whose absence it sends. */
  readonly sent: ReadonlySet<string>;
  /** Tables that it empties. */
  readonly emptied: readonly string[];
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
  /** Every state that a row ever had, at any source. */
  readonly #states = new Map<string, UserRow[]>();
  /** What the replica showed of them. */
  readonly #shown = new Set<string>();
  /** Rows that were set aside, by version. */
  readonly #parked = new Map<string, Set<string>>();
  /** Dead letters that were open when a version was the head. */
  readonly #lettersAt = new Map<string, readonly Letter[]>();
  /** Dead letters that a walk has closed. */
  readonly #healed = new Set<number>();
  /** Versions that went off the record, and times that messages did. */
  #trimmed = 0;
  /** Rows that something else than the queue has changed. */
  readonly #drifted = new Set<string>();
  /** Those of them that the source was not told of when it happened. */
  readonly #untold = new Set<string>();
  /** Those of them at the source that nothing has told it of. */
  readonly #silent = new Set<string>();
  /** Those of them in the replica. */
  readonly #byHand = new Set<string>();
  /** Those of them that no walk that is open has to mend. */
  #unmended = new Set<string>();
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
    for (const [name, rows] of other.#states) this.#states.set(name, [...rows]);
    for (const batch of other.#appliedEver) this.#appliedEver.add(batch);
  }

  /** A snapshot was taken. */
  snapshot(text: string, rows: Rows): void {
    this.#snapshots.set(text, rows);
  }

  /** A version was handed out, with what is sent of each table. */
  handedOut(
    { state }: SourceModel,
    version: Version,
    tables: readonly Fields[],
  ): void {
    const sent = tables.flatMap(({ table, columns, rows, gone }) => {
      const { key } = USER_TABLES[table as string]!;
      const at = key.map((name) => (columns as string[]).indexOf(name));
      const keys = (rows as string[][]).map((row) =>
        at.map((one) => row[one]!)
      );
      return [...keys, ...gone as string[][]].map((key) =>
        nameOf(table as string, JSON.stringify(key))
      );
    });
    this.#handed.set(version.batch, {
      version,
      msgIds: version.msgIds,
      letters: new Set(
        state.letters.flatMap(({ message }) => namesOf(message)),
      ),
      sent: new Set(sent),
      emptied: version.emptied,
    });
  }

  /** A version was settled: messages left the queue. */
  acked({ batch }: Version, settled: readonly number[]): void {
    // Settled again, it files its dead letters again.
    this.#lettersAt.delete(batch);
    const { msgIds } = this.#handed.get(batch)!;
    const problem = !this.#appliedEver.has(batch)
      ? `batch ${batch} was settled and never applied`
      : settled.join() !== msgIds.join()
      ? `batch ${batch} covers ${msgIds}, and ${settled} left`
      : null;
    if (problem !== null) {
      this.#break(
        "a message left the queue before the replica had it",
        problem,
      );
    }
  }

  /** A version was put back. */
  putBack({ user }: SourceModel, { batch }: Version): void {
    const { msgIds } = this.#handed.get(batch)!;
    const missing = msgIds.filter((id) => !user.queue.has(id));
    if (missing.length > 0) {
      this.#break(
        "a message that is put back comes under its old number",
        `batch ${batch} covers ${missing}`,
      );
    }
  }

  /** A version went off the record. */
  trimmed({ state: { chain } }: SourceModel, version: Version): void {
    this.#trimmed += 1;
    const { epoch, position, batch } = version;
    const isReachable = epoch === chain.epoch &&
      (position > chain.position || batch === chain.batch);
    if (isReachable) {
      this.#break(
        "a version was trimmed that the replica can reach",
        `position ${position}, and the head is at ${chain.position}`,
      );
    }
  }

  /** Rows of a version were set aside. */
  parked({ state: { chain, batches } }: SourceModel, version: Version): void {
    this.world.count("parked");
    const { batch, parked, prev, state } = version;
    const names = this.#parked.get(batch) ?? new Set();
    for (const name of parked.flatMap(namesOf)) names.add(name);
    this.#parked.set(batch, names);
    const before = batches.find((other) => other.batch === prev);
    const isNext = state === "handed" && (prev === chain.batch ||
      before?.state === "handed" && before.prev === chain.batch);
    if (!isNext) this.#break("a row was set aside too late", `batch ${batch}`);
  }

  /** A walk closed dead letters. */
  healed(letters: readonly number[]): void {
    for (const id of letters) this.#healed.add(id);
  }

  /** The archive lost what positions could be put back from. */
  purged(): void {
    this.#trimmed += 1;
  }

  /** A source answered. */
  asked(source: SourceModel): void {
    const { chain, batches, letters } = source.state;
    const names = letters.flatMap(({ message }) => namesOf(message));
    if (new Set(names).size < names.length) {
      this.#break("a row has two open dead letters", names.join());
    }
    const path = new Set<string>();
    const named = new Map(batches.map((version) => [version.batch, version]));
    for (
      let on = named.get(chain.batch);
      on !== undefined;
      on = named.get(on.prev)
    ) path.add(on.batch);
    const strange = batches.find(({ epoch, batch, state }) =>
      epoch === chain.epoch && path.has(batch) !== (state === "settled")
    );
    // The path ends where it was trimmed; nothing below is put back or settled.
    if (strange !== undefined && this.#trimmed === 0) {
      this.#break(
        "what is settled is not what the head stands on",
        `batch ${strange.batch} at ${strange.position} is ${strange.state}`,
      );
    }
    if (!this.hasOtherPast) this.#stands(source);
  }

  /** The dead letters are those of the head, and all that excuses the replica
   * where it stands there. */
  #stands({ state: { chain, letters } }: SourceModel): void {
    const isNew = !this.#lettersAt.has(chain.batch);
    if (isNew) this.#lettersAt.set(chain.batch, letters);
    const before = this.#lettersAt.get(chain.batch)!;
    const expected = before.filter(({ id }) => !this.#healed.has(id));
    const told = (list: readonly Letter[]) =>
      JSON.stringify(list.map(({ id, message }) => [id, message]));
    if (told(expected) !== told(letters)) {
      this.#break(
        "the dead letters are not those of the head",
        `batch ${chain.batch}: expected ${told(expected)}, found ${
          told(letters)
        }`,
      );
    }
    const row = this.#row;
    const isThere = isNew && row?.batch === chain.batch && row.position > 0;
    if (!isThere || row.drained === 0 || row.walk_done === 0) return;
    this.world.count("stands");
    const excused = before.flatMap(({ message }) => namesOf(message));
    this.#equal(row, readTables(this.world.replica, row), new Set(excused));
  }

  /** A new epoch began. */
  epoch(reason: string): void {
    this.world.count(`epoch: ${reason.replace(/\d+/g, "n")}`);
    const isFalse = /on record|are gone/.test(reason)
      ? !this.hasOtherPast && this.#trimmed === 0
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
    this.#untold.add(name);
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
  wrote(table: string, key: string, row: UserRow): void {
    const name = nameOf(table, key);
    const states = this.#states.get(name);
    if (states === undefined) this.#states.set(name, [row]);
    else states.push(row);
  }

  /** Every row is one that a source had, as a whole. */
  #exists(row: Row, found: Found): void {
    const schema = schemaOf(row);
    const excused = this.#excusedAt(row);
    for (const { name: table } of schema.tables) {
      const columns = columnsOf(table, row);
      for (const [key, cells] of found.get(table) ?? []) {
        const name = nameOf(table, key);
        // A column that was added is empty until the row is read again.
        const isWhole = row.walk_done === 1 && !excused.has(name);
        const id = `${name} ${isWhole} ${row.schema_hash} ${columns.join()} ${
          JSON.stringify(cells)
        }`;
        if (this.#drifted.has(name) || this.#shown.has(id)) continue;
        const isState = this.#states.get(name)?.some((had) =>
          columns.every((column, at) =>
            !isWhole && column === "extra" ||
            isStored(had[column] ?? null, cells[at]!, { table, column, schema })
          )
        );
        if (isState) this.#shown.add(id);
        else {
          this.#break(
            "a row that never was",
            `${name}: ${JSON.stringify(cells)} (${columns.join()})`,
          );
        }
      }
    }
  }

  /** A row went at the source. */
  gone(gone: Gone): void {
    this.#order.gone(gone);
  }

  /** The replica lost commits. */
  rewound(commits: number): void {
    this.#past = this.#past.filter(({ commit }) => commit <= commits);
    this.#order.forgetAll();
    this.#unmended = new Set(this.#untold);
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
      const isRebuilt = before !== null && before.rebuilding !== "[]";
      this.#order.follow(found, isRebuilt ? this.#excusedAt(row) : new Set());
    }
    this.#exists(row, found);
    if (row.walk_done === 0) return;
    if (row.drained === 1) {
      this.world.count("equal");
      this.#equal(row, found, this.#excusedAt(row));
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
        fresh.includes(tableOf(name))
      ),
    );
  }

  /** The replica's row. */
  get row(): Row | null {
    return this.#row;
  }

  /** How the replica differs from what the source holds, but for open letters. */
  differences({ user, state }: SourceModel): string[] {
    const row = this.#row!;
    return differences(user.rows, readTables(this.world.replica, row), {
      excused: new Set(
        state.letters.flatMap(({ message }) => namesOf(message)),
      ),
      schema: schemaOf(row),
    });
  }

  /** Dead letters whose row could be in the replica. */
  healthyLetters({ user, state }: SourceModel): string[] {
    const row = this.#row!;
    const [strict] = this.world.replica.read(
      "SELECT name FROM sqlite_master WHERE name = 'strict_INSERT'",
    );
    return state.letters.flatMap(({ message }) =>
      namesOf(message).filter((name) => {
        const table = tableOf(name);
        const there = user.rows[table]!.get(name.slice(table.length + 1));
        const isRefused = there !== undefined &&
          (isUnreadable(there) || !isStorable(there, table, schemaOf(row)) ||
            strict !== undefined && there.name?.startsWith("bad"));
        return !isRefused;
      })
    );
  }

  /** The rows that the replica need not have where it stands: set aside on the
   * way, and not sent since. */
  #excusedAt({ batch }: Row): Excused {
    const handed = this.#handed.get(batch);
    const before = this.#handed.get(handed?.version.prev ?? "");
    const excused = new Set(handed?.letters);
    for (const one of [before, handed]) {
      if (one === undefined) continue;
      for (const name of one.sent) excused.delete(name);
      for (const name of excused) {
        if (one.emptied.includes(tableOf(name))) excused.delete(name);
      }
      for (const name of this.#parked.get(one.version.batch) ?? []) {
        excused.add(name);
      }
    }
    return excused;
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
    const excused = this.#excusedAt(row);
    for (const name in rows) {
      for (const [key, expected] of rows[name]!) {
        const there = found.get(name)?.get(key);
        const stamp = there === undefined ? null : stampOf(there);
        const seen = stampOf(Object.values(expected));
        const id = nameOf(name, key);
        const isExcused = excused.has(id) || this.#unmended.has(id);
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
  #equal(row: Row, found: Found, aside: Excused): void {
    const rows = this.#snapshots.get(row.snapshot!);
    if (rows === undefined) {
      this.#break("drained and walked", `no such snapshot: ${row.snapshot}`);
      return;
    }
    const excused = new Set([...aside, ...this.#unmended]);
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

/** The name of the row that a dead letter, or a change set aside, is of. One
 * without a key excuses no row: what it left out is walked. */
function namesOf({ table, key }: Fields): string[] {
  return Array.isArray(key)
    ? [nameOf(table as string, JSON.stringify(key))]
    : [];
}

function tableOf(name: string): string {
  return name.slice(0, name.indexOf(" "));
}
