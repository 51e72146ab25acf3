/**
 * The order of a row's states: within an epoch none goes back, once known.
 *
 * @module
 */

import { type Excused, type Found, nameOf, stampOf } from "./found.ts";
import type { Gone } from "./tables.ts";

/** Follows every row of a replica. */
export class RowOrder {
  /** The newest state of each row that the replica had in this epoch. */
  #known = new Map<string, number>();
  readonly #gone = new Map<string, number[]>();

  /** @param onBack Told where a row goes back. */
  constructor(readonly onBack: (detail: string) => void) {}

  /** Goes on from where another one was. */
  goOnFrom(other: RowOrder): void {
    this.#known = new Map(other.#known);
    for (const [name, stamps] of other.#gone) this.#gone.set(name, [...stamps]);
  }

  /** A row went at the source. */
  gone({ table, key, stamp }: Gone): void {
    const name = nameOf(table, key);
    const stamps = this.#gone.get(name);
    if (stamps === undefined) this.#gone.set(name, [stamp]);
    else stamps.push(stamp);
  }

  /** A row was changed past the queue. */
  forget(name: string): void {
    this.#known.delete(name);
  }

  /** The replica has another past. */
  forgetAll(): void {
    this.#known = new Map();
  }

  /** The replica holds this now; rows that were set aside may be missing where a
   * table was rebuilt. */
  follow(found: Found, aside: Excused): void {
    for (const [table, rows] of found) {
      for (const [key, cells] of rows) {
        const stamp = stampOf(cells);
        if (stamp === null) continue;
        const name = nameOf(table, key);
        const known = this.#known.get(name) ?? 0;
        if (stamp < known) {
          this.onBack(`${name}: state ${stamp} after ${known}`);
        }
        this.#known.set(name, stamp);
      }
    }
    for (const [name, known] of this.#known) {
      const at = name.indexOf(" ");
      const [table, key] = [name.slice(0, at), name.slice(at + 1)];
      if (found.get(table)?.has(key) ?? true) continue;
      if (aside.has(name)) {
        this.#known.delete(name);
        continue;
      }
      const gone = this.#gone.get(name) ?? [];
      if (gone.includes(known)) continue;
      const next = gone.find((stamp) => stamp > known);
      if (next === undefined) {
        this.onBack(`${name}: nothing after state ${known}, and it never went`);
      } else {
        this.#known.set(name, next);
      }
    }
  }
}
