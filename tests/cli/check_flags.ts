/**
 * Checks how a command treats its flags, without running it.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { type Command, runCommand } from "../../lib/cli/command.ts";

/** What a command did. */
export interface Ran {
  /** The exit code; null if it went on to do its work. */
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/**
 * Runs a command in a test without permissions: past its flags it can do
 * nothing, as the first setting it reads is refused.
 *
 * @param command The command.
 * @param args Its arguments.
 * @returns What it did.
 */
export async function runBare(
  command: Command,
  args: readonly string[],
): Promise<Ran> {
  const { log, error } = console;
  let out = "";
  let err = "";
  console.log = (line: string) => void (out += `${line}\n`);
  console.error = (line: string) => void (err += `${line}\n`);
  try {
    return { code: await runCommand(command, args), out, err };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotCapable)) throw error;
    return { code: null, out, err };
  } finally {
    Object.assign(console, { log, error });
  }
}

/**
 * Checks that a command prints its usage on --help, refuses what it does not
 * know, and knows every flag that its usage names.
 *
 * @param name The task's name.
 * @param command The command.
 */
export async function checkFlags(
  name: string,
  command: Command,
): Promise<void> {
  for (const args of [["--help"], ["-h"], ["--no-such-flag", "--help"]]) {
    const { code, out, err } = await runBare(command, args);
    assertEquals([code, err], [0, ""], `${name} ${args.join(" ")}`);
    assertMatch(out, new RegExp(`^Usage: deno task ${name}\\b`));
  }
  for (const flag of ["--no-such-flag", "--no-such-flag=1", "-x", "--", "-"]) {
    const { code, out, err } = await runBare(command, [flag]);
    assertEquals([code, out], [2, ""], `${name} ${flag}`);
    assert(err.endsWith(`\n\n${command.usage}\n`), err);
  }
  const stray = await runBare(command, ["stray"]);
  assertEquals([stray.code, stray.out], [2, ""], `${name} stray`);
  const [usage = "", ...texts] = command.usage.split("\n\n");
  const flags = new Set(usage.match(/--[a-z-]+/g));
  for (const flag of flags) {
    const { err } = await runBare(command, [flag]);
    assert(!err.includes("unknown flag"), `${name} ${flag}: ${err}`);
    assertMatch(texts.join("\n\n"), new RegExp(`^  ${flag}\\b`, "m"));
  }
}
