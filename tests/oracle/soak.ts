/**
 * Ring 3. The command soak: sessions of the oracle for as long as one likes.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { Servers } from "../db/support/stack.ts";
import { noCounts, progressLine } from "./counts.ts";
import { describeFailure, Session, SETTINGS } from "./session.ts";
import { within } from "./writer.ts";

const { values } = parseArgs({
  args: Deno.args,
  options: {
    minutes: { type: "string", default: "30" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    sessions: { type: "string", default: "1000000" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "8" },
  },
});
const first = Number(values.seed);
const end = Date.now() + Number(values.minutes) * 60_000;
const counts = noCounts();
const servers = new Servers({ settings: SETTINGS });
console.log(`seed ${first}, ${values.minutes} minutes`);
let code = 0;
try {
  for (
    let seed = first;
    seed < first + Number(values.sessions) && Date.now() < end;
    seed++
  ) {
    const options = {
      seed,
      rounds: Number(values.rounds),
      roundMs: Number(values.seconds) * 1_000,
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
Deno.exit(code);
