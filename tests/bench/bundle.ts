/**
 * Ring 3. How large the bundle is, and how soon it answers.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { freePort, startChild } from "../../lib/dev/child.ts";
import type { Part } from "./found.ts";
import { median } from "./median.ts";

const ROOT = new URL("../../", import.meta.url);
const START_MS = 30_000;
/** It is over in a moment: often enough for what else the machine does. */
const STARTS = 11;

/** Bundles the worker as `deno task build` does, to another place. */
async function build(to: string): Promise<void> {
  const { tasks } = JSON.parse(
    await Deno.readTextFile(new URL("deno.json", ROOT)),
  );
  const command: string[] = tasks.build.command.replace("dist.js", to).split(
    " ",
  );
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: command.slice(1),
    cwd: fileURLToPath(ROOT),
    stderr: "piped",
    stdout: "null",
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

/** Milliseconds from a server's start to its first answer. */
async function startMs(file: string): Promise<number> {
  const port = freePort();
  const started = performance.now();
  const child = startChild({
    name: file,
    command: Deno.execPath(),
    args: ["run", "--quiet", "--no-config", "-A", file],
    env: { ...Deno.env.toObject(), PORT: String(port) },
    cwd: fileURLToPath(ROOT),
  });
  try {
    while (performance.now() - started < START_MS) {
      try {
        const answer = await fetch(`http://127.0.0.1:${port}/health`);
        if (await answer.text() === "OK") return performance.now() - started;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
    throw new Error(`No answer in time: ${child.lastLines()}`);
  } finally {
    await child.kill();
  }
}

/** The part of this file. */
export const BUNDLE: Part = {
  name: "bundle",
  keys: ["bundle_kb", "start_ms"],
  async run(lab, { log }) {
    const folder = await lab.folder();
    const dist = `${folder}/dist.js`;
    await build(dist);
    const bare = `${folder}/bare.js`;
    await Deno.writeTextFile(
      bare,
      `Deno.serve({ port: Number(Deno.env.get("PORT")), onListen() {} }, () => new Response("OK"));`,
    );
    const times = { dist: [] as number[], bare: [] as number[] };
    for (let round = 0; round < STARTS; round++) {
      times.bare.push(await startMs(bare));
      times.dist.push(await startMs(dist));
    }
    const [distMs, bareMs] = [median(times.dist), median(times.bare)];
    const kb = (await Deno.stat(dist)).size / 1_000;
    log(
      `dist.js ${kb} KB, ${Math.round(distMs)} ms, bare ${
        Math.round(bareMs)
      } ms`,
    );
    return {
      figures: { bundle_kb: kb, start_ms: distMs - bareMs },
      details: { distMs, bareMs },
    };
  },
};
