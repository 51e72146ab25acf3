import postgres from "postgres";
import { Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** Two transactions that hold one key at once, and what each does, in order. */
const CASES: Record<string, readonly [who: 0 | 1, sql: string][]> = {
  "one moves a row onto a key that the other takes away": [
    [0, "update x set id = 2 where n = 'a'"],
    [1, "update x set id = 3 where n = 'b'"],
    [1, "commit"],
    [0, "commit"],
  ],
  "one moves a row away that the other has moved another one onto": [
    [1, "update x set id = 3 where n = 'b'"],
    [0, "update x set id = 2 where n = 'a'"],
    [1, "update x set n = 'b 2' where id = 3"],
    [1, "commit"],
    [0, "commit"],
  ],
  "two rows trade keys, and a third is put where one was": [
    [0, "update x set id = 3 - id where id in (1, 2)"],
    [1, "insert into x values (4, 'd')"],
    [0, "update x set id = 4 where n = 'a'"],
    [1, "update x set id = 5 where n = 'd'"],
    [1, "commit"],
    [0, "commit"],
  ],
  "a row goes whose key another one has taken": [
    [0, "update x set id = 2 where n = 'a'"],
    [0, "delete from x where n = 'b'"],
    [1, "insert into x values (1, 'c')"],
    [0, "commit"],
    [1, "commit"],
  ],
};

for (const [name, steps] of Object.entries(CASES)) {
  Deno.test(`both sides are equal under a key that is INITIALLY DEFERRED: ${name}`, async () => {
    await using stack = await Stack.start(servers, {
      schema: {
        tables: {
          x: { key: "id", columns: { id: "INTEGER", n: "TEXT" }, indexes: [] },
        },
      },
      setup:
        "create table x (id bigint primary key deferrable initially deferred, n text)",
    });
    await stack.sql`update libsql_sync.chain set scrub_rows = 0`;
    await stack.walk();
    await stack.run("insert into x values (1, 'a'), (2, 'b')");
    await stack.settle();
    const url = stack.server.url({ database: stack.database });
    const sessions = [0, 1].map(() =>
      postgres(url, { max: 1, prepare: false, onnotice: () => {} })
    );
    for (const sql of sessions) await sql.unsafe("begin");
    // The other commit may wait for this one.
    const ends: Promise<unknown>[] = [];
    for (const [who, sql] of steps) {
      const done = sessions[who]!.unsafe(sql);
      if (sql === "commit") ends.push(done);
      else await done;
    }
    await Promise.all(ends);
    await Promise.all(sessions.map((sql) => sql.end()));
    await stack.drain();
    await stack.assertEqual();
  });
}
