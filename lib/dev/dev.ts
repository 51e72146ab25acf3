/**
 * Ring 3. `deno task dev`: everything on this machine, with changes flowing.
 *
 * Promise: Ctrl-C, a crash of one part and an error while starting all end with
 * no process left behind.
 *
 * @module
 */
import { type Command, runCommand } from "../cli/command.ts";
import { parseFlags, readPorts, USAGE } from "./dev_settings.ts";
import { type Dev, startDev } from "./dev_stack.ts";
import { arrival } from "./dev_once.ts";

/** Prints one line with the time of day. */
function print(line: string): void {
  console.log(`${new Date().toTimeString().slice(0, 8)}  ${line}`);
}

/** How to reach each part. */
function directions(dev: Dev): string {
  const query =
    '{"requests":[{"type":"execute","stmt":{"sql":"select count(*) from app_versions"}}]}';
  return `
  open        ${dev.workerUrl}/ with the secret ${dev.signature}: lag, tables, walks, syncs
  both sides  ${dev.sidesUrl} shows rows as they change and arrive
  PostgreSQL  ${dev.pgUrl}
  libSQL      curl -s ${dev.libsqlUrl}/v2/pipeline -d '${query}'
  worker      curl -s -X POST -H 'x-webhook-signature: ${dev.signature}' ${dev.workerUrl}/sync
  commands    PGMQ_URL=${dev.pgUrl} WORKER_URL=${dev.workerUrl} WEBHOOK_SIGNATURE=${dev.signature} deno task status
  cron        calls the worker every ${
    dev.cronEveryMs / 1000
  } s here (deployed: every 5 minutes)
  data        ${dev.folder}, kept; --fresh forgets it

  Change a row in PostgreSQL and watch it arrive. Ctrl-C ends everything.
`;
}

/** Runs the command and returns its exit code. */
async function main(args: readonly string[]): Promise<number> {
  const flags = parseFlags(args);
  const { ports, problems } = readPorts((name) => Deno.env.get(name));
  if (problems.length > 0) {
    for (const problem of problems) console.error(`Cannot start: ${problem}`);
    return 1;
  }

  // The first of these decides the exit code: a signal, a part that died, or the work.
  const over = Promise.withResolvers<number>();
  const controller = new AbortController();
  const end = (code: number) => {
    over.resolve(code);
    controller.abort();
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => end(0));
  }
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    print(`error: ${event.reason?.message ?? event.reason}`);
    end(1);
  });

  const stops: (() => Promise<void>)[] = [];
  const work = async () => {
    const dev = await startDev({
      flags,
      ports,
      print,
      signal: controller.signal,
      onStart: (stop) => stops.push(stop),
      onCrash: (name) => {
        if (controller.signal.aborted) return;
        print(`error: ${name} ended unexpectedly`);
        end(1);
      },
    });
    if (flags.once) return end(await arrival(dev, controller.signal, print));
    console.log(directions(dev));
  };
  const working = work().catch((error) => {
    if (!controller.signal.aborted) print(`error: ${error.message}`);
    end(1);
  });
  const code = await over.promise;
  // A part being started right now must be there to be stopped.
  await working;
  for (const stop of stops.reverse()) {
    await stop().catch((error) => print(`error: ${error.message}`));
  }
  if (!flags.once) print("everything has ended");
  return code;
}

/** The command. */
export const command: Command = { usage: USAGE, run: main };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
