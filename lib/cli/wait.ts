/**
 * Ring 3. Waiting, for the commands.
 *
 * @module
 */

/**
 * Waits.
 *
 * @param ms How long, in milliseconds.
 * @returns Resolves after that time.
 */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Waits for a promise, for a limited time.
 *
 * @param promise What to wait for.
 * @param options The limit in milliseconds.
 * @returns What the promise resolved to.
 * @throws {DOMException} `TimeoutError` if the limit passes first.
 */
export async function withLimit<T>(
  promise: Promise<T>,
  options: { limitMs: number },
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new DOMException("no answer in time", "TimeoutError")),
      options.limitMs,
    );
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}
