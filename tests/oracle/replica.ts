/**
 * Ring 3. Hands in the replica, and what befalls its server.
 *
 * Promise: rows that a hand was in are excused before it is.
 *
 * @module
 */

import { createClient, type InStatement } from "@libsql/client/http";
import type { Random } from "../../lib/dev/random.ts";
import type { Session } from "./session.ts";
import { SCHEMA } from "./tables.ts";
import { within } from "./writer.ts";

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;
/** How long sqld may take for a small write before it counts as hanging. */
const HANG_MS = 7_000;

/** Writes past the worker; whether it is known to have happened. */
async function write(
  { stack }: Session,
  statements: InStatement[],
): Promise<boolean> {
  const client = createClient({ url: stack.sqld.url, authToken: "test" });
  try {
    await within(HANG_MS, client.batch(statements, "write"));
    return true;
  } catch {
    return false;
  } finally {
    client.close();
  }
}

/** The replica of a session, with what somebody does to it. */
export class Replica {
  #saved: { folder: string; excused: Set<string> } | null = null;

  constructor(private readonly session: Session) {}

  /** Sets the data aside. */
  async save(): Promise<void> {
    const { stack, excused } = this.session;
    const folder = `${stack.folder}/saved`;
    await stack.sqld.kill();
    await stack.sqld.backup(folder);
    this.#saved = { folder, excused: new Set(excused) };
  }

  /** Puts the data back: a failover that lost commits. */
  async putBack(): Promise<void> {
    if (this.#saved === null) return await this.save();
    const { stack, excused, order } = this.session;
    // What was wrong in it then is wrong again.
    for (const row of this.#saved.excused) excused.add(row);
    await stack.sqld.kill();
    order.failovers += 1;
    await stack.sqld.restore(this.#saved.folder);
  }

  /** Everything is gone: a volume that was lost. */
  async lose(): Promise<void> {
    const { stack, order } = this.session;
    const empty = `${stack.folder}/empty`;
    await Deno.mkdir(empty, { recursive: true });
    await stack.sqld.kill();
    order.failovers += 1;
    await stack.sqld.restore(empty);
  }

  /** Starts the server anew where it hangs. */
  async tend(): Promise<void> {
    const { stack, counts, trace } = this.session;
    if (
      await write(this.session, ["CREATE TABLE IF NOT EXISTS _alive (id)"])
    ) return;
    counts.faults["sqld hung"] = (counts.faults["sqld hung"] ?? 0) + 1;
    trace.push("sqld hung");
    await stack.sqld.kill();
    await stack.sqld.start();
  }

  /** Changes a cell, takes a row away or makes a ghost. */
  async corrupt(random: Random): Promise<void> {
    const { excused } = this.session;
    const state = await this.session.read();
    const table = random.pick(["hot", "swap", "child", "pair"]);
    const rows = [...state?.tables.get(table)?.entries() ?? []];
    if (rows.length === 0) return;
    const [key, cells] = rows[random.below(rows.length)]!;
    const { columns, key: names } = SCHEMA.tables[table]!;
    const keys = [names].flat();
    const args = keys.map((name) =>
      columns[name] === "INTEGER"
        ? BigInt(cells[name]!.text!)
        : cells[name]!.text
    );
    const ghost = [900_000n + BigInt(random.below(1_000)), ...args.slice(1)];
    const ghostKey = keys.length === 1
      ? String(ghost[0])
      : JSON.stringify(ghost.map(String));
    excused.add(`${table}\0${key}`).add(`${table}\0${ghostKey}`);
    const where = keys.map((name) => `${quote(name)} = ?`).join(" AND ");
    const column = Object.keys(columns).find((name) => !keys.includes(name))!;
    const into = keys.map(quote).join(", ");
    const marks = keys.map(() => "?").join(", ");
    const [sql, values] = random.pick(
      [
        [
          `UPDATE ${quote(table)} SET ${quote(column)} = 77 WHERE ${where}`,
          args,
        ],
        [`DELETE FROM ${quote(table)} WHERE ${where}`, args],
        [
          `INSERT OR IGNORE INTO ${quote(table)} (${into}) VALUES (${marks})`,
          ghost,
        ],
      ] as const,
    );
    await write(this.session, [{ sql, args: [...values] }]);
  }

  /** A rule of somebody's: what it refuses is set aside. */
  async refuse(): Promise<void> {
    for (let id = 3; id < 400; id += 7) this.session.excused.add(`tag\0${id}`);
    await write(
      this.session,
      ["INSERT", "UPDATE"].map((verb) =>
        `CREATE TRIGGER IF NOT EXISTS by_hand_${verb} BEFORE ${verb} ON tag WHEN NEW.id % 7 = 3
         BEGIN SELECT RAISE(ABORT, 'by hand'); END`
      ),
    );
  }

  /** The rule goes. */
  async allow(): Promise<void> {
    const isGone = await write(
      this.session,
      ["INSERT", "UPDATE"].map((verb) =>
        `DROP TRIGGER IF EXISTS by_hand_${verb}`
      ),
    );
    if (!isGone) throw new Error("the replica's rule could not be dropped");
  }
}
