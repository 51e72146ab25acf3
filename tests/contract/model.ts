/**
 * The source in memory, as the contract tests it.
 *
 * @module
 */

import { SourceModel } from "../sim/source_model.ts";
import type { Fields } from "../sim/source_state.ts";
import { redrive } from "../sim/source_walks.ts";
import { HASHES, SCHEMAS, type SourceUnderTest } from "./source.ts";

/** Makes one with the first schema in force and empty tables. */
export function makeModel(): SourceUnderTest & { readonly model: SourceModel } {
  let made = 0;
  const model = new SourceModel({
    now: () => 1_800_000_000_000,
    uuid: () => `00000000-0000-4000-8000-${String(++made).padStart(12, "0")}`,
    events: {
      handedOut: () => {},
      snapshot: () => {},
      acked: () => {},
      putBack: () => {},
      trimmed: () => {},
      parked: () => {},
      healed: () => {},
      epoch: () => {},
    },
  });
  model.configure(SCHEMAS[0]!, HASHES[0]!);
  const copy = (value: unknown) => JSON.parse(JSON.stringify(value));
  return {
    model,
    carrier: {
      call: (name, request) =>
        Promise.resolve(copy(model.call(name, copy(request)))),
    },
    run: (statement, session) =>
      Promise.resolve(model.user.run(statement, session ?? null)),
    begin: (session) => Promise.resolve(void model.user.begin(session)),
    end: (session, how) => Promise.resolve(void model.user.end(session, how)),
    send: (message) => {
      model.user.queue.set(model.user.nextMsgId++, message);
      return Promise.resolve();
    },
    configure: (schema, hash) => Promise.resolve(model.configure(schema, hash)),
    set: (settings) => {
      Object.assign(model.state.chain, settings);
      return Promise.resolve();
    },
    redrive: () => Promise.resolve(redrive(model)),
    standing: () => Promise.resolve(standingOf(model)),
    close: () => Promise.resolve(),
  };
}

/** What is on record, without times, as the adapter of PostgreSQL tells it. */
function standingOf({ state, user }: SourceModel): Fields {
  const { chain } = state;
  return {
    chain: {
      epoch: chain.epoch,
      position: chain.position,
      batch: chain.batch,
      handed: chain.handed,
      lease: chain.lease,
      scrub_rows: chain.scrubRows,
      refill: chain.refill,
      asked: chain.walkWanted > chain.walkOpened,
      paused: chain.paused,
      letters_closed: chain.lettersClosed,
      floor: chain.floor,
      floor_next: chain.floorNext,
      floor_awaits: chain.floorAwaits.length,
    },
    epochs: state.epochs.map(({ epoch, wipe, reason }) => ({
      epoch,
      wipe,
      reason,
    })),
    batches: state.batches
      .filter(({ epoch }) => epoch === chain.epoch)
      .toSorted((a, b) => a.position - b.position || a.handedAt - b.handedAt)
      .map((version) => ({
        position: version.position,
        batch: version.batch,
        prev: version.prev,
        msg_ids: version.msgIds,
        cut: version.cut &&
          { msg_id: version.cut.msgId, keys: version.cut.keys },
        messages: version.messages,
        drained: version.drained,
        dead_letters: version.deadLetters,
        parked: version.parked,
        opens: version.opens !== null,
        upto: version.upto && { ...version.upto },
        state: version.state,
      })),
    walks: state.walks.map((walk) => ({
      walk_gen: walk.walkGen,
      kind: walk.kind,
      tables: walk.tables,
      keys: walk.keys,
      repair: walk.repair,
      closes: walk.closes,
      ended: walk.endedAt !== null,
      found: walk.found,
    })),
    queue: [...user.queue.keys()].sort((a, b) => a - b),
    archive: [...state.archive.keys()].sort((a, b) => a - b),
    letters: state.letters.map(({ message }) => message),
  };
}
