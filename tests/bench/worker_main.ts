/**
 * Ring 3. The worker, which ends in good order when asked to: V8's own words
 * about its heap are written when a process exits, and not before.
 *
 * @module
 */

Deno.addSignalListener("SIGTERM", () => Deno.exit(0));
await import("../../main.ts");
