/**
 * Ring 0. The replica's row: where the replica stands, and what its readers may rely on.
 *
 * @module
 */

/** Where a replica stands, and what its readers may rely on. */
export interface ReplicaRow {
  /** The chain it follows. */
  readonly epoch: string;
  /** How many batches of it are applied. */
  readonly position: number;
  /** The id of the last one. */
  readonly batch: string;
  /** The id of the one before. */
  readonly prev: string | null;
  /** The epoch it came from. */
  readonly from_epoch: string | null;
  /** Which walk is on. */
  readonly walk_gen: number;
  /** How far the walk is. */
  readonly walk_at: string | null;
  /** Whether every table was walked. */
  readonly walk_done: number;
  /** Tables created empty by this epoch and not walked yet, as JSON. */
  readonly fresh: string;
  /** Tables whose indexes are to be built, as JSON. */
  readonly unindexed: string;
  /** Tables rebuilt beside the old ones, which readers still see, as JSON. */
  readonly rebuilding: string;
  /** Whether the last batch took every message there was. */
  readonly drained: number;
  /** The source's snapshot of the last batch that was drained: all that it saw is here. */
  readonly snapshot: string | null;
  /** When the last batch's snapshot was taken. */
  readonly source_time: string | null;
  /** The schema its tables have. */
  readonly schema_hash: string;
  /** How many dead letters are open. */
  readonly dead_letters: number;
  /** How much its database holds, without the pages that are free again. */
  readonly bytes: number;
  /** Set if another writer changed the fields of the walk. Those that cannot be
   * read hold their first values here, until an `alter` stores them. */
  readonly damaged?: true;
}
