/**
 * Ring 3. `deno task token`: the token by which PostgREST knows the worker.
 *
 * Promise: it names the worker's role and no other; the secret is not printed,
 * and not an argument, which other users of the machine could see.
 *
 * @module
 */

import {
  type Command,
  parseCall,
  readNumber,
  runCommand,
  UsageError,
} from "./command.ts";
import { signToken } from "../dev/jwt.ts";

const DAYS = { name: "days", default: 365, min: 1, max: 36_500 };
const DAY_S = 86_400;
const SECRET_LENGTH_MIN = 32;

const USAGE = `Usage: deno task token [--days N]

Prints the worker's PGMQ_TOKEN: a JWT with the role libsql_sync_worker, signed
with the project's JWT secret (Supabase: Settings, JWT keys, legacy JWT secret).

  --days N  how long it is valid; default ${DAYS.default}

The secret is read from JWT_SECRET in the environment,
or from a file: deno task --env-file=<file> token`;

async function run(args: readonly string[]): Promise<number> {
  const days = readNumber(parseCall(args, { days: "text" }), DAYS);
  const secret = Deno.env.get("JWT_SECRET") ?? "";
  if (secret.length < SECRET_LENGTH_MIN) {
    throw new UsageError(
      `JWT_SECRET must be the project's JWT secret, of ${SECRET_LENGTH_MIN} characters or more`,
    );
  }
  const exp = Math.floor(Date.now() / 1000) + days * DAY_S;
  console.log(await signToken({ role: "libsql_sync_worker", exp }, secret));
  return 0;
}

/** The command. */
export const command: Command = { usage: USAGE, run };

if (import.meta.main) Deno.exit(await runCommand(command, Deno.args));
