/**
 * Ring 0. The middle of several runs.
 *
 * @module
 */

/**
 * The middle one of some numbers, or the mean of the two in the middle.
 *
 * @param values The numbers.
 * @returns The median.
 */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? sorted[middle]!
    : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
