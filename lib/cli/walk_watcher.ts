/**
 * Ring 3. The progress of a walk on the terminal or in a log.
 *
 * Promise: Ctrl-C ends the watching, never the walk.
 *
 * @module
 */

import { formatProgress, type Progress } from "./progress.ts";

/** Shows how a walk gets on. */
export interface Watcher {
  /** Shows how far it is. */
  progress(progress: Progress): void;
  /** Shows a line that stays. */
  notice(line: string): void;
}

const BAR_WIDTH = 24;

/**
 * Creates what shows a walk's progress: a bar on a terminal, lines elsewhere,
 * nothing beside JSON.
 *
 * @param options Whether the result is printed as JSON.
 * @returns The watcher.
 */
export function createWatcher(options: { isJson: boolean }): Watcher {
  Deno.addSignalListener("SIGINT", () => {
    console.error(
      "\nThe walk continues with the cron's syncs: deno task status shows its progress.",
    );
    Deno.exit(130);
  });
  if (options.isJson) return { progress: () => {}, notice: () => {} };
  return Deno.stdout.isTerminal() ? createBar() : createLines();
}

/** Prints a line whenever the progress has changed. */
function createLines(): Watcher {
  let last = "";
  return {
    progress(progress) {
      const line = formatProgress(progress, { barWidth: 0 });
      if (line !== last) console.log(line);
      last = line;
    },
    notice: (line) => console.log(line),
  };
}

/** Keeps one line of the terminal up to date. */
function createBar(): Watcher {
  const write = (text: string) =>
    void Deno.stdout.writeSync(new TextEncoder().encode(text));
  return {
    progress: (progress) =>
      write(`\r${formatProgress(progress, { barWidth: BAR_WIDTH })}\x1b[K`),
    notice: (line) => write(`\r${line}\x1b[K\n`),
  };
}
