/**
 * Ring 3. A command's arguments, and its run as a process.
 *
 * Promise: exit code 0 means fine, 1 a difference or a failure, 2 a wrong call;
 * every failure is one sentence that holds no secret.
 *
 * @module
 */

import { oneLine } from "./table.ts";

/** What follows a command's name. */
export interface Call {
  /** The flags given; a switch is "". */
  readonly flags: Readonly<Record<string, string>>;
  /** The words that are not flags. */
  readonly words: readonly string[];
}

/** A wrong call: exit code 2. */
export class UsageError extends Error {
  /** The class's name. */
  override readonly name = "UsageError";
}

/** A failure that its message explains: exit code 1. */
export class CommandError extends Error {
  /** The class's name. */
  override readonly name = "CommandError";
}

/**
 * Reads what follows a command's name.
 *
 * @param args The arguments.
 * @param allowed The flags: a switch, or one that takes a text.
 * @param options How many words are allowed besides; default 0.
 * @returns The flags and words.
 * @throws {UsageError} For anything else.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseCall(["--table", "apps", "--json"], { table: "text", json: "switch" }), {
 *   flags: { table: "apps", json: "" },
 *   words: [],
 * });
 * ```
 */
export function parseCall(
  args: readonly string[],
  allowed: Readonly<Record<string, "switch" | "text">>,
  options: { wordsMax?: number } = {},
): Call {
  const flags: Record<string, string> = {};
  const words: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (!arg.startsWith("-")) {
      words.push(arg);
      continue;
    }
    const [, name, given] = /^--([^=]+)(?:=(.*))?$/s.exec(arg) ?? [];
    if (name === undefined || !Object.hasOwn(allowed, name)) {
      const shown = name === undefined ? arg : `--${name}`;
      throw new UsageError(`unknown flag ${oneLine(shown, 42)}`);
    }
    if (name in flags) throw new UsageError(`--${name} is given twice`);
    if (allowed[name] === "switch") {
      if (given !== undefined) throw new UsageError(`--${name} takes no value`);
      flags[name] = "";
      continue;
    }
    const value = given ?? args[++i];
    if (value === undefined || value === "" || value.startsWith("--")) {
      throw new UsageError(`--${name} needs a value`);
    }
    flags[name] = value;
  }
  const extra = words[options.wordsMax ?? 0];
  if (extra !== undefined) {
    throw new UsageError(`unexpected argument ${oneLine(extra, 40)}`);
  }
  return { flags, words };
}

/** What a flag's number may be. */
export interface NumberFlag {
  /** The flag's name, without "--". */
  readonly name: string;
  /** The number if the flag is not given. */
  readonly default: number;
  /** The least number allowed. */
  readonly min: number;
  /** The greatest number allowed. */
  readonly max: number;
  /** Whether decimals are allowed. */
  readonly hasDecimals?: boolean;
}

/**
 * Reads a flag that takes a number.
 *
 * @param call The flags and words.
 * @param flag The flag's name and bounds.
 * @returns The number.
 * @throws {UsageError} If the flag's text is not such a number.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const days = { name: "days", default: 365, min: 1, max: 1000 };
 * assertEquals(readNumber({ flags: { days: "7" }, words: [] }, days), 7);
 * assertEquals(readNumber({ flags: {}, words: [] }, days), 365);
 * ```
 */
export function readNumber({ flags }: Call, flag: NumberFlag): number {
  const { name, min, max, hasDecimals = false } = flag;
  const text = flags[name];
  if (text === undefined) return flag.default;
  const number = Number(text);
  const isNumber = hasDecimals
    ? /^\d+(\.\d+)?$/.test(text)
    : /^\d+$/.test(text);
  if (!isNumber || number < min || number > max) {
    const kind = hasDecimals ? "number" : "whole number";
    throw new UsageError(`--${name} must be a ${kind} from ${min} to ${max}`);
  }
  return number;
}

/** A command. */
export interface Command {
  /** What --help prints. */
  readonly usage: string;
  /** Runs it; resolves to the exit code. */
  readonly run: (args: readonly string[]) => Promise<number>;
}

/**
 * Runs a command as a process does.
 *
 * @param command The command.
 * @param args What follows its name.
 * @returns The exit code.
 */
export async function runCommand(
  command: Command,
  args: readonly string[],
): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    console.log(command.usage);
    return 0;
  }
  try {
    return await command.run(args);
  } catch (error) {
    if (error instanceof UsageError) {
      console.error(`${error.message}\n\n${command.usage}`);
      return 2;
    }
    if (!(error instanceof CommandError)) throw error;
    console.error(error.message);
    return 1;
  }
}

/**
 * Prints one value as JSON.
 *
 * @param value The value.
 */
export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, null, 2));
}
