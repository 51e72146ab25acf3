/** The row of a replica that is filled and drained, to be varied. */

import type { ReplicaRow } from "../../lib/chain/row.ts";

/** The row. */
export const ROW: ReplicaRow = {
  epoch: "epoch-1",
  position: 7,
  batch: "batch-7",
  prev: "batch-6",
  from_epoch: null,
  walk_gen: 3,
  walk_at: null,
  walk_done: 1,
  fresh: "[]",
  unindexed: "[]",
  rebuilding: "[]",
  drained: 1,
  snapshot: "10:10:",
  source_time: "2026-11-22T12:00:00Z",
  schema_hash: "hash",
  dead_letters: 0,
  bytes: 1_048_577,
};
