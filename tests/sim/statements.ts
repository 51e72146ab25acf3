/**
 * Statements of users: few rows, all kinds.
 *
 * @module
 */

import { oneOf, type Random } from "./random.ts";
import type { SourceModel } from "./source_model.ts";
import { type Row, USER_TABLES, type UserStatement } from "./tables.ts";
import type { World } from "./world.ts";

/** The keys that users write, few of them. */
export const KEYS: readonly [string, string][] = [
  ...["1", "2", "3"].map((id): [string, string] => [
    "item",
    JSON.stringify([id]),
  ]),
  ...["1", "2"].flatMap((item) =>
    ["a", "b"].map((code): [string, string] => [
      "part",
      JSON.stringify([item, code]),
    ])
  ),
];

/** A statement over few keys, every write with a number of its own. */
export function makeStatement(
  world: World,
  user: SourceModel["user"],
  random: Random,
): UserStatement {
  const [table, first] = oneOf(random, KEYS);
  const all = KEYS.filter(([name]) => name === table).map(([, key]) => key);
  const second = oneOf(random, all);
  const keys = random(8) === 0
    ? all
    : random(3) === 0 && first !== second
    ? [first, second]
    : [first];
  const label = table === "item" ? "name" : "note";
  const stamped = (): Row => ({
    [label]: `${
      table === "item" && random(8) === 0
        ? "bad "
        : random(16) === 0
        ? "torn "
        : ""
    }v${++world.stamps}`,
    ...(table === "item" && random(3) === 0
      ? { size: oneOf(random, ["5", "6", "6", "x", null]) }
      : {}),
    ...(table === "item" && random(3) === 0
      ? { extra: oneOf(random, ["e", "f", null]) }
      : {}),
  });
  const rows = () =>
    keys.map((key) => {
      const cells = JSON.parse(key) as string[];
      const row: Record<string, string | null> = {};
      for (const name of USER_TABLES[table]!.columns) row[name] = null;
      USER_TABLES[table]!.key.forEach((name, at) => row[name] = cells[at]!);
      return { ...row, ...stamped() };
    });
  const isThere = user.rows[table]!.has(first);
  switch (random(isThere ? 12 : 4)) {
    case 0:
      if (random(3) === 0) return { kind: "truncate", table };
      if (random(3) === 0) return { kind: "reload", table, rows: rows() };
      break;
    case 4:
    case 5:
      return { kind: "delete", table, keys };
    case 6:
    case 7: {
      const at = JSON.parse(second) as string[];
      const moved = Object.fromEntries(
        USER_TABLES[table]!.key.map((name, index) => [name, at[index]!]),
      );
      return {
        kind: "rekey",
        table,
        key: first,
        set: { ...moved, ...stamped() },
      };
    }
    case 8:
      return { kind: "touch", table, keys, set: stamped(), again: stamped() };
    case 9:
    case 10:
    case 11:
      return { kind: "update", table, keys, set: stamped() };
  }
  return { kind: "insert", table, rows: rows() };
}
