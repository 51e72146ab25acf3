/**
 * Ring 1. The log: one JSON line for each event.
 *
 * Promise: a failure to log never fails what is logged.
 *
 * @module
 */

/** How much attention an event asks for. */
export type LogLevel = "info" | "warn" | "error";

/** What an event carries: names, codes, counts and times, never row values. */
export type LogFields = Record<
  string,
  string | number | boolean | null | undefined
>;

/** Writes one event. */
export type Log = (level: LogLevel, event: string, fields: LogFields) => void;

/**
 * Makes a log.
 *
 * A line begins with `time`, `level` and `event`, which a field of the same
 * name does not replace. A line that cannot be made or written is lost.
 *
 * @param write Takes one line, without a line end.
 * @param now The time in milliseconds since 1970.
 * @returns The log.
 */
export function createLog(
  write: (line: string) => void,
  now: () => number,
): Log {
  return (level, event, fields) => {
    try {
      const first = { time: new Date(now()).toISOString(), level, event };
      write(JSON.stringify({ ...first, ...fields, ...first }));
    } catch {
      // There is nowhere to report it.
    }
  };
}
