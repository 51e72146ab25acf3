/**
 * Ring 0. A limit on concurrency.
 *
 * Promise: however many requests arrive at once, only a few hold a connection
 * to PostgreSQL, whose connections its own users need.
 *
 * @module
 */

/**
 * Makes a limiter: it runs a few functions at once. The others wait and start
 * in the order in which they came.
 *
 * @param runningMax How many may run at once.
 * @returns Runs a function when there is room, and settles as it does.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const limited = limitConcurrency(1);
 * const order: string[] = [];
 * const run = (name: string) =>
 *   limited(async () => {
 *     order.push(`${name} begins`);
 *     await Promise.resolve();
 *     order.push(`${name} ends`);
 *   });
 * await Promise.all([run("a"), run("b")]);
 * assertEquals(order, ["a begins", "a ends", "b begins", "b ends"]);
 * ```
 */
export function limitConcurrency(
  runningMax: number,
): <T>(run: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async (run) => {
    if (running >= runningMax) {
      // The one that ends passes its place on: a newcomer cannot take it first.
      await new Promise<void>((resolve) => waiting.push(resolve));
    } else running += 1;
    try {
      return await run();
    } finally {
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  };
}
