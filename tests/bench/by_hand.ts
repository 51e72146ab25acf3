/**
 * Ring 3. A worker that claims and applies one batch at a time.
 *
 * @module
 */

import { parseConfig } from "../../lib/config/config.ts";
import { withParts } from "../../lib/connect/connect.ts";
import { parseSchema, schemaHash } from "../../lib/schema.ts";
import schemaJson from "../../schema.json" with { type: "json" };
import { Hand } from "../db/support/chain.ts";
import type { Pair } from "./lab.ts";

/**
 * Runs something with a worker driven by hand, which has the lease.
 *
 * @param pair Its source and replica.
 * @param run Takes the worker, and what tells the milliseconds of its last claim.
 * @returns What `run` returns.
 */
export async function withHand<T>(
  pair: Pair,
  run: (hand: Hand, claimMs: () => number) => Promise<T>,
): Promise<T> {
  const settings: Record<string, string> = {
    LIBSQL_URL: pair.sqld.url,
    LIBSQL_AUTH_TOKEN: "bench",
    PGMQ_URL: pair.url,
    WEBHOOK_SIGNATURE: "bench-webhook-signature",
  };
  const config = parseConfig((name) => settings[name]);
  const schema = parseSchema(schemaJson);
  const hash = await schemaHash(schema);
  const options = { config, schema, hash, log: () => {} };
  return await withParts(options, async (parts) => {
    const { source } = parts;
    let ms = 0;
    const timed: typeof source.claim = async (request) => {
      const started = performance.now();
      const claim = await source.claim(request);
      ms = performance.now() - started;
      return claim;
    };
    const hand = new Hand(
      { ...parts, source: { ...source, claim: timed } },
      schemaJson,
    );
    await source.lease(hand.lease);
    return await run(hand, () => ms);
  });
}
