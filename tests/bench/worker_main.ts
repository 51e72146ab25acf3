/**
 * Ring 3. The worker as its memory is measured: it collects garbage often where
 * V8 lets it, so that the heap is what it needs, and it ends in good order when
 * asked to, as V8's own words are written when a process exits, and not before.
 *
 * @module
 */

const COLLECT_MS = 100;

const { gc } = globalThis as { gc?: () => void };
if (gc) setInterval(gc, COLLECT_MS);
Deno.addSignalListener("SIGTERM", () => Deno.exit(0));
await import("../../main.ts");
