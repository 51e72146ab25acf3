/**
 * Ring 3. The command `deno task soak`: sessions of the oracle, one after
 * another, until one fails or the time is over.
 *
 * @module
 */

import {
  type Command,
  parseCall,
  readNumber,
  runCommand,
} from "../../lib/cli/command.ts";
import { Servers } from "../db/support/stack.ts";
import { noCounts, progressLine } from "./counts.ts";
import { describeFailure, Session, SETTINGS } from "./session.ts";
import { within } from "./writer.ts";

const USAGE = `Usage: deno task soak [--minutes N] [--seed N] [--sessions N]
                       [--rounds N] [--seconds N]

Runs random sessions with faults on real databases, each judged by the oracle,
until one fails or the time is over. Exit code 1 if one fails.

  --minutes N   after this time no session begins; default 30
  --seed N      the first session's seed, the next ones count up; default random
  --sessions N  how many sessions at most; default 1000000
  --rounds N    how many rounds a session has; default 3
  --seconds N   how long a round is; default 8`;

/** What was asked for. */
interface Asked {
  readonly minutes: number;
  readonly seed: number;
  readonly sessions: number;
  readonly rounds: number;
  readonly seconds: number;
}

function parseArguments(args: readonly string[]): Asked {
  const call = parseCall(args, {
    minutes: "text",
    seed: "text",
    sessions: "text",
    rounds: "text",
    seconds: "text",
  });
  const read = (
    name: string,
    options: { default: number; min?: number; hasDecimals?: boolean },
  ) => readNumber(call, { name, min: 1, max: 1_000_000_000, ...options });
  return {
    minutes: read("minutes", { default: 30, min: 0, hasDecimals: true }),
    seed: read("seed", { default: Date.now() % 1_000_000, min: 0 }),
    sessions: read("sessions", { default: 1_000_000 }),
    rounds: read("rounds", { default: 3 }),
    seconds: read("seconds", { default: 8, min: 0, hasDecimals: true }),
  };
}

async function run(args: readonly string[]): Promise<number> {
  const asked = parseArguments(args);
  const end = Date.now() + asked.minutes * 60_000;
  const counts = noCounts();
  const servers = new Servers({ settings: SETTINGS });
  console.log(`seed ${asked.seed}, ${asked.minutes} minutes`);
  let code = 0;
  try {
    for (
      let seed = asked.seed;
      seed < asked.seed + asked.sessions && Date.now() < end;
      seed++
    ) {
      const options = {
        seed,
        rounds: asked.rounds,
        roundMs: asked.seconds * 1_000,
      };
      const session = await Session.start(servers, options, counts);
      try {
        await session.run();
      } catch (error) {
        code = 1;
        console.log((error as Error).stack ?? error);
        console.log(describeFailure(session));
        break;
      } finally {
        await within(60_000, session[Symbol.asyncDispose]());
      }
      const time = new Date().toISOString().slice(11, 19);
      console.log(`${time} seed ${seed}: ${progressLine(counts)}`);
    }
  } finally {
    await servers.stop();
  }
  console.log(JSON.stringify(counts, null, 1));
  return code;
}

/** The command. */
export const command: Command = { usage: USAGE, run };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
