/**
 * Epochs of the source in memory.
 *
 * @module
 */

import type { SourceModel } from "./source_model.ts";
import type { Fields } from "./source_state.ts";

/** libsql_sync.begin_epoch */
export function beginEpoch(
  source: SourceModel,
  reason: string,
  wipe: boolean,
): string {
  const { state, options } = source;
  const genesis = options.uuid();
  state.epochs.push({
    generation: state.nextGeneration++,
    epoch: genesis,
    wipe,
    reason,
  });
  Object.assign(state.chain, {
    epoch: genesis,
    position: 0,
    batch: genesis,
    handed: 0,
    lettersClosed: 0,
  });
  // What was handed out and not settled can land nowhere any more.
  state.batches = state.batches.filter(({ state }) => state === "settled");
  state.walks = [];
  options.events.epoch(reason, wipe);
  return genesis;
}

/** libsql_sync.adopt_answer */
export function adoptAnswer(source: SourceModel, from: string): Fields {
  const { chain, epochs } = source.state;
  const since = epochs.find(({ epoch }) => epoch === from)?.generation;
  return {
    do: "adopt",
    epoch: chain.epoch,
    from,
    reason: epochs.find(({ epoch }) => epoch === chain.epoch)!.reason,
    wipe: since !== undefined &&
      epochs.some(({ generation, wipe }) => generation > since && wipe),
  };
}
