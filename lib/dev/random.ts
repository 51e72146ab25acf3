/**
 * Ring 3. Random values that a seed repeats.
 *
 * Promise: the same seed gives the same values in the same order.
 *
 * @module
 */

/** A source of repeatable random values. */
export interface Random {
  /** A whole number from 0 up to, not including, the bound. */
  below(bound: number): number;
  /** One of a list. */
  pick<T>(list: readonly T[]): T;
  /** True so often, 0 never, 1 always. */
  chance(probability: number): boolean;
  /** So many hexadecimal digits. */
  hex(digits: number): string;
  /** A version 4 UUID. */
  uuid(): string;
}

/**
 * Makes a source of random values.
 *
 * @param seed Any number.
 * @returns The source.
 */
export function seededRandom(seed: number): Random {
  // mulberry32: small, fast, and good enough for sample data.
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (bound: number) => Math.floor(next() * bound);
  const hex = (digits: number) =>
    Array.from({ length: digits }, () => below(16).toString(16)).join("");
  return {
    below,
    pick: (list) => list[below(list.length)]!,
    chance: (probability) => next() < probability,
    hex,
    uuid: () =>
      `${hex(8)}-${hex(4)}-4${hex(3)}-${"89ab"[below(4)]}${hex(3)}-${hex(12)}`,
  };
}
