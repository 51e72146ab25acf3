/**
 * What the replica's row proves applied, and what becomes of it at the source in
 * memory.
 *
 * @module
 */

import { fileLetters, heal, tryUpdated } from "./source_letters.ts";
import type { SourceModel } from "./source_model.ts";
import type { Fields, Version } from "./source_state.ts";

/** The versions that the replica's row proves applied, in order; null where it
 * proves none. */
export function provenBy(
  { faults, state: { chain } }: SourceModel,
  versions: readonly Version[],
  at: Fields,
): Version[] | null {
  const newest = versions
    .filter(({ position }) => position === at.position)
    .toSorted((a, b) => b.version - a.version)[0];
  const proven = versions.find(({ position, batch }) =>
    position === at.position && batch === at.batch
  );
  if (at.position === chain.position + 1) {
    const found = faults.ackByPosition ? newest : proven;
    if (found === undefined) return null;
    if (!faults.ackOtherContent) return [found];
    const { msgIds, messages, parked } = newest!;
    return [Object.assign(found, { msgIds, messages, parked })];
  }
  // It was handed out ahead: what it stands on was applied before it.
  const before = versions.find(({ position, batch, prev }) =>
    position === chain.position + 1 && batch === proven?.prev &&
    prev === chain.batch
  );
  if (before === undefined) return null;
  return faults.aheadAlone ? [proven!] : [before, proven!];
}

/** libsql_sync.ack; how many messages left the queue. */
export function ack(source: SourceModel, version: Version): number {
  const { state, user } = source;
  heal(source, version);
  fileLetters(source, version, version.parked);
  tryUpdated(source, version);
  const settled = version.msgIds.filter((id) => user.queue.has(id));
  for (const id of settled) {
    state.archive.set(id, user.queue.get(id)!);
    user.queue.delete(id);
  }
  // What was handed out on top of another version can never be applied.
  state.batches = state.batches.filter((other) =>
    other.epoch !== version.epoch || other.batch === version.batch ||
    other.position !== version.position &&
      (other.position !== version.position + 1 || other.prev === version.batch)
  );
  version.state = "acked";
  version.ackedAt = source.clock();
  state.chain.position = version.position;
  state.chain.batch = version.batch;
  source.options.events.acked(version, settled);
  if (source.faults.progressAtAck) {
    source.progress = source.uptos.get(version.batch) ?? source.progress;
  }
  return settled.length;
}

/** libsql_sync.trim */
export function trim(source: SourceModel): void {
  const { state } = source;
  const since = source.clock() - state.chain.replayWindowMs;
  const old = state.batches
    .filter((version) => version.state === "acked" && version.ackedAt < since)
    .toSorted((a, b) => a.ackedAt - b.ackedAt)
    .slice(0, 4);
  for (const version of old) {
    for (const id of version.msgIds) state.archive.delete(id);
    version.state = "trimmed";
    version.msgIds = [];
    version.parked = [];
  }
}
