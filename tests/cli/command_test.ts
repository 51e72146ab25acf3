import { assertEquals, assertThrows } from "@std/assert";
import {
  CommandError,
  parseCall,
  readNumber,
  runCommand,
  UsageError,
} from "../../lib/cli/command.ts";

const FLAGS = { json: "switch", table: "text" } as const;

Deno.test("parseCall() reads flags and words in any order", () => {
  assertEquals(parseCall([], FLAGS), { flags: {}, words: [] });
  assertEquals(
    parseCall(["show", "--table=a=b", "7", "--json"], FLAGS, { wordsMax: 2 }),
    { flags: { table: "a=b", json: "" }, words: ["show", "7"] },
  );
  assertEquals(parseCall(["--table", "-x"], FLAGS).flags, { table: "-x" });
});

Deno.test("parseCall() refuses what the command does not know", () => {
  for (
    const [args, said] of [
      [["--what"], "unknown flag --what"],
      [["--constructor"], "unknown flag --constructor"],
      [["-j"], "unknown flag -j"],
      [["--"], "unknown flag --"],
      [["--json", "--json"], "--json is given twice"],
      [["--json=yes"], "--json takes no value"],
      [["--table"], "--table needs a value"],
      [["--table="], "--table needs a value"],
      [["--table", "--json"], "--table needs a value"],
      [["word"], "unexpected argument word"],
      [["a\u001b[2J"], "unexpected argument a�[2J"],
    ] as const
  ) {
    const error = assertThrows(() => parseCall(args, FLAGS), UsageError);
    assertEquals(error.message, said);
  }
});

Deno.test("readNumber() reads a number in its bounds, and names the flag otherwise", () => {
  const read = (text: string, hasDecimals = false) =>
    readNumber({ flags: { n: text }, words: [] }, {
      name: "n",
      default: 7,
      min: 1,
      max: 100,
      hasDecimals,
    });
  assertEquals(read("1"), 1);
  assertEquals(read("100"), 100);
  assertEquals(read("1.5", true), 1.5);
  for (const text of ["0", "101", "1.5", "-1", "x", "1e1", "0x9", " 5", ""]) {
    const error = assertThrows(() => read(text), UsageError);
    assertEquals(error.message, "--n must be a whole number from 1 to 100");
  }
  for (const text of ["0.9", "100.1", "1.", ".5", "NaN", "Infinity"]) {
    const error = assertThrows(() => read(text, true), UsageError);
    assertEquals(error.message, "--n must be a number from 1 to 100");
  }
});

/** Runs a command and keeps what it prints. */
async function capture(
  run: () => Promise<number>,
): Promise<{ code: number; out: string[]; err: string[] }> {
  const { log, error } = console;
  const out: string[] = [];
  const err: string[] = [];
  console.log = (line: string) => void out.push(line);
  console.error = (line: string) => void err.push(line);
  try {
    return { code: await run(), out, err };
  } finally {
    Object.assign(console, { log, error });
  }
}

Deno.test("runCommand() makes each outcome an exit code, and prints where it belongs", async () => {
  const usage = "Usage: deno task x";
  const run = (outcome: () => number, args: string[] = []) =>
    capture(() =>
      runCommand({
        usage,
        run: () => Promise.resolve().then(outcome),
      }, args)
    );
  const fail = (error: Error) => () => {
    throw error;
  };
  assertEquals(await run(() => 1), { code: 1, out: [], err: [] });
  assertEquals(await run(fail(new CommandError("It failed."))), {
    code: 1,
    out: [],
    err: ["It failed."],
  });
  assertEquals(await run(fail(new UsageError("unknown flag --what"))), {
    code: 2,
    out: [],
    err: [`unknown flag --what\n\n${usage}`],
  });
  for (const help of ["--help", "-h"]) {
    const helped = await run(fail(new Error("it ran")), ["--json", help]);
    assertEquals(helped, { code: 0, out: [usage], err: [] });
  }
});
