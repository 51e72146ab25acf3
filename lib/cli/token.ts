/**
 * Ring 3. `deno task token`: the token by which PostgREST knows the worker.
 *
 * Promise: it names the worker's role and no other, and the secret is neither
 * an argument, which others could see, nor printed.
 *
 * @module
 */

import { signToken } from "../dev/jwt.ts";
import { parseCall, runCommand, UsageError } from "./command.ts";

const USAGE = `Usage: deno task token [--days N]

Prints a JWT of role libsql_sync_worker for the worker's PGMQ_TOKEN, signed with
the project's JWT secret (Supabase: Settings, JWT keys, legacy JWT secret), which
is read from JWT_SECRET.

  --days N  how long it holds; 365 unless told

or from a file: deno task --env-file=<file> token`;

const DAYS = 365;
const DAY_S = 86_400;

async function run(args: readonly string[]): Promise<number> {
  const { flags } = parseCall(args, { days: "text" });
  const days = Number(flags.days ?? DAYS);
  if (!Number.isInteger(days) || days < 1 || days > 36_500) {
    throw new UsageError("--days must be a whole number from 1 to 36500");
  }
  const secret = Deno.env.get("JWT_SECRET") ?? "";
  if (secret.length < 32) {
    throw new UsageError(
      "JWT_SECRET must be the project's JWT secret, of 32 characters or more",
    );
  }
  const exp = Math.floor(Date.now() / 1000) + days * DAY_S;
  console.log(await signToken({ role: "libsql_sync_worker", exp }, secret));
  return 0;
}

if (import.meta.main) {
  Deno.exit(await runCommand({ usage: USAGE, run }, Deno.args));
}
