/**
 * Ring 0. Messages of one row each that the source sent as one, taken apart.
 *
 * @module
 */

/** Messages that came as one: runs of those whose rows have the same columns. */
export function runsOf(
  ids: readonly string[],
  message: unknown,
): (readonly [readonly string[], unknown])[] {
  const { kinds, of, rows, ...rest } = message as {
    kinds?: readonly Record<string, unknown>[];
    of: readonly number[];
    rows: readonly unknown[];
  };
  if (kinds === undefined) return [[ids, message]];
  const runs: [readonly string[], unknown][] = [];
  for (let from = 0, to = 0; from < of.length; from = to) {
    while (of[to] === of[from]) to += 1;
    const { columns, field } = kinds[of[from]!]!;
    const run = { ...rest, columns, [field as string]: rows.slice(from, to) };
    runs.push([ids.slice(from, to), run]);
  }
  return runs;
}

/** Messages of one row each that came as one, as they were sent. */
export function apart(
  ids: readonly string[],
  message: unknown,
): [string, unknown][] {
  const { rows, updates, ...rest } = message as {
    rows?: unknown[];
    updates?: unknown[];
  };
  return ids.map((id, at) => [
    id,
    rows ? { ...rest, rows: [rows[at]] } : { ...rest, updates: [updates![at]] },
  ]);
}
