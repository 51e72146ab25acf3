/**
 * Chance that comes again: the same numbers for the same seed.
 *
 * @module
 */

/** A random whole number from 0 up to `below`. */
export type Random = (below: number) => number;

/** Random whole numbers, the same for a seed (mulberry32). */
export function randomOf(seed: number): Random {
  let state = seed | 0;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** One of a list. */
export function oneOf<T>(random: Random, list: readonly T[]): T {
  return list[random(list.length)]!;
}

/** A name by its weight; null where no weight is left. */
export function weighted<T extends string>(
  random: Random,
  weights: Partial<Record<T, number>>,
): T | null {
  let sum = 0;
  for (const name in weights) sum += weights[name] ?? 0;
  if (sum <= 0) return null;
  let at = random(1_000_000) / 1_000_000 * sum;
  for (const name in weights) {
    at -= weights[name] ?? 0;
    if (at < 0) return name;
  }
  return null;
}
