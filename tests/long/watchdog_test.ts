/** However a run ends, its servers end with it and its folders are removed. */

import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { freePort, startChild } from "../../lib/dev/child.ts";
import { makeServerTempDir } from "../../lib/dev/server_user.ts";
import { until } from "../db/support/chain.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const START_MS = 120_000;
const END_MS = 60_000;

/** The processes that have a text in their arguments or their environment. */
async function processesOf(mark: string): Promise<Map<number, string>> {
  const found = new Map<number, string>();
  for await (const { name } of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const read = (file: string) =>
      Deno.readTextFile(`/proc/${name}/${file}`).catch(() => "");
    const args = await read("cmdline");
    if (`${args}\0${await read("environ")}`.includes(mark)) {
      found.set(Number(name), args.replaceAll("\0", " "));
    }
  }
  return found;
}

/** Starts a command, ends it once its servers run and it has printed a line, and
 * looks for what stays. */
async function endHalfWay(
  args: string[],
  signal: Deno.Signal,
  line?: string,
): Promise<Deno.CommandStatus> {
  const folder = await makeServerTempDir();
  const command = startChild({
    name: args.join(" "),
    command: Deno.execPath(),
    args,
    env: {
      ...Deno.env.toObject(),
      TMPDIR: folder,
      DEV_FOLDER: `${folder}/dev`,
      PORT: String(freePort()),
      DEV_PG_PORT: String(freePort()),
      DEV_LIBSQL_PORT: String(freePort()),
    },
    cwd: ROOT,
  });
  try {
    await until("PostgreSQL and sqld run", async () => {
      assert(command.isRunning(), command.lastLines());
      const running = [...(await processesOf(folder)).values()].join("\n");
      return running.includes("/bin/postgres ") && running.includes("/sqld ") &&
        command.lastLines().includes(line ?? "");
    }, START_MS);
    Deno.kill(command.pid, signal);
    await until("no process of it is there", async () => {
      return (await processesOf(folder)).size === 0;
    }, END_MS);
    await until("no folder of it is there", async () => {
      const names = (await Array.fromAsync(Deno.readDir(folder)))
        .map(({ name }) => name);
      return names.every((name) => name === "dev");
    }, END_MS);
    return await command.ended;
  } finally {
    await command.kill();
    await Deno.remove(folder, { recursive: true });
  }
}

for (const signal of ["SIGINT", "SIGTERM", "SIGKILL"] as const) {
  Deno.test(`deno test leaves no server and no folder behind after ${signal}`, async () => {
    const test = ["test", "-A", "tests/db/support/endless.ts"];
    // A server that answers is known to the watchdog. In the instant of its start it
    // may not be yet, and kill -9 leaves no time to say so.
    await endHalfWay(test, signal, "the servers answer");
  });
}

for (
  const [args, signal] of [
    [["dev"], "SIGINT"],
    [["dev"], "SIGTERM"],
    [["soak", "--minutes", "9"], "SIGINT"],
    [["load", "--quick"], "SIGTERM"],
    [["bench", "--quick", "--only", "calls"], "SIGINT"],
  ] as const
) {
  Deno.test(`deno task ${args[0]} leaves no server and no folder behind after ${signal}`, async () => {
    const { code } = await endHalfWay(["task", ...args], signal);
    if (args[0] === "dev") assertEquals(code, 0);
  });
}
