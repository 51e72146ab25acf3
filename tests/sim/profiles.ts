/**
 * How often what happens in a schedule.
 *
 * @module
 */

import type { Kind } from "./actions.ts";

/** How often each kind is tried. */
export type Profile = Partial<Record<Kind, number>>;

/** What ordinary schedules are made of. */
export const EVERYTHING: Profile = {
  start: 14,
  nuke: 0.4,
  step: 60,
  lose: 3,
  drop: 1,
  stall: 3,
  twice: 1.5,
  hold: 1,
  grip: 0.5,
  ungrip: 4,
  land: 3,
  kill: 2,
  write: 16,
  bad: 0.5,
  lock: 0.7,
  begin: 2,
  end: 3,
  skew: 2,
  later: 2,
  rewind: 2,
  backup: 0.7,
  restore: 0.3,
  clone: 0.2,
  drift: 0.7,
  strict: 0.3,
  lenient: 0.5,
  deploy: 0.5,
  detach: 0.7,
  purge: 0.2,
  cap: 0.2,
  send: 0.3,
  operate: 1.5,
};

/** What schedules are made of: everything, or more of what belongs together. */
export const PROFILES: readonly Profile[] = [
  EVERYTHING,
  { ...EVERYTHING, rewind: 8, stall: 6, land: 5, kill: 4, later: 0.5 },
  // Many versions on many branches, and tables that cannot be locked.
  {
    ...EVERYTHING,
    write: 40,
    rewind: 8,
    stall: 8,
    land: 8,
    twice: 4,
    lock: 4,
    bad: 3,
    detach: 2,
    restore: 0,
    clone: 0,
  },
  // Rows are set aside, come again, and the replica forgets.
  {
    ...EVERYTHING,
    strict: 3,
    lenient: 3,
    rewind: 5,
    operate: 5,
    drift: 2,
    detach: 2,
  },
  EVERYTHING,
  // Another past, another source.
  { ...EVERYTHING, backup: 4, restore: 2, clone: 2, rewind: 5, skew: 4 },
  EVERYTHING,
  { ...EVERYTHING, deploy: 3, stall: 6, land: 5, nuke: 1.5 },
];
