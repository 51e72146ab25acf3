/**
 * Ring 0. Requests take turns.
 *
 * Promise: however many come at once, few hold a connection to PostgreSQL,
 * whose connections belong to its users.
 *
 * @module
 */

/**
 * Makes a gate that lets so many through at once; the others wait, in the order
 * in which they came.
 *
 * @param atOnceMax How many.
 * @returns Runs a function in its turn, and returns what it returns.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const inTurn = createTurns(1);
 * const order: string[] = [];
 * const run = (name: string) =>
 *   inTurn(async () => {
 *     order.push(`${name} begins`);
 *     await Promise.resolve();
 *     order.push(`${name} ends`);
 *   });
 * await Promise.all([run("a"), run("b")]);
 * assertEquals(order, ["a begins", "a ends", "b begins", "b ends"]);
 * ```
 */
export function createTurns(
  atOnceMax: number,
): <T>(run: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let atOnce = 0;
  return async (run) => {
    if (atOnce >= atOnceMax) {
      // Whoever ends hands his place on: nobody else takes it in between.
      await new Promise<void>((resolve) => waiting.push(resolve));
    } else atOnce += 1;
    try {
      return await run();
    } finally {
      const next = waiting.shift();
      if (next === undefined) atOnce -= 1;
      else next();
    }
  };
}
