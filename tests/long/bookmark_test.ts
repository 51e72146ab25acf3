/** Read your writes: bookmarks of transactions, and what a replica contains. */

import { createClient } from "@libsql/client/http";
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import postgres from "postgres";
import { startSqld } from "../../lib/dev/sqld.ts";
import { CONTAINED, contains } from "../../lib/reader.ts";
import {
  expireLease,
  Hand,
  insertItems,
  saveReplica,
  startChain,
  until,
} from "../db/support/chain.ts";
import { Servers, type Stack } from "../db/support/stack.ts";
import { seed } from "../seed.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

/** A chain whose replica was walked, and is not scrubbed. */
async function startWalked(): Promise<Stack> {
  const stack = await startChain(servers);
  await stack.sql`update libsql_sync.chain set refill = true`;
  await stack.walk();
  return stack;
}

/** A transaction's connection. */
function connect(stack: Stack, options: { user?: string } = {}): postgres.Sql {
  return postgres(stack.server.url({ database: stack.database, ...options }), {
    max: 1,
    prepare: false,
    onnotice: () => {},
  });
}

/** Writes one item and returns the bookmark of its transaction. */
async function write(stack: Stack, id: number): Promise<string> {
  return await stack.sql.begin(async (sql) => {
    await sql`insert into item values (${id}, 'bookmarked', ${id})`;
    const [row] = await sql`select libsql_sync.bookmark() as bookmark`;
    return row!.bookmark as string;
  });
}

/** Whether the replica contains each; the two ways to ask say the same. */
async function contained(
  { client }: Stack,
  bookmarks: readonly string[],
): Promise<boolean[]> {
  const [row, ...asked] = await client.batch([
    "SELECT * FROM _libsql_sync",
    ...bookmarks.map((bookmark) => ({ sql: CONTAINED, args: [bookmark] })),
  ], "read");
  const found = asked.map(({ rows }) => Number(rows[0]!.contained) === 1);
  assertEquals(
    found,
    bookmarks.map((bookmark) => contains({ ...row!.rows[0] }, bookmark)),
  );
  return found;
}

Deno.test("contains() and CONTAINED see what pg_visible_in_snapshot() does", async () => {
  const [database, folder] = await Promise.all([
    servers.database({ migrated: false }),
    servers.folder(),
  ]);
  const sql = postgres((await servers.postgres()).url({ database }), {
    max: 1,
  });
  const sqld = await startSqld({ dataDir: `${folder}/sqld` });
  const client = createClient({ url: sqld.url, authToken: "test" });
  try {
    await client.batch([
      "CREATE TABLE _libsql_sync (id, epoch, walk_done, snapshot, source_time)",
      "INSERT INTO _libsql_sync VALUES (1, 'e-1', 1, NULL, '2026-11-22T11:46:15.9+05:30')",
    ]);
    const source_time = "2026-11-22T11:46:15.9+05:30";
    const seconds = Math.floor(Date.parse(source_time) / 1000);
    const large = 2n ** 40n;
    const snapshots = fc.tuple(
      fc.bigInt(1n, 40n),
      fc.bigInt(0n, 12n),
      fc.uniqueArray(fc.bigInt(0n, 11n), { maxLength: 8 }),
      fc.constantFrom(0n, large),
    ).map(([xmin, width, open, base]) => ({
      base,
      snapshot: `${base + xmin}:${base + xmin + width}:${
        open.filter((n) => n < width).sort((a, b) => Number(a - b))
          .map((n) => base + xmin + n).join(",")
      }`,
    }));
    const cases = fc.sample(
      fc.tuple(snapshots, fc.bigInt(1n, 56n)).map((
        [{ base, snapshot }, n],
      ) => ({
        snapshot,
        xid: String(base + n),
      })),
      { numRuns: 600, seed: seed() },
    );
    const visible = await sql<{ visible: boolean }[]>`
      select pg_visible_in_snapshot(c.xid::xid8, c.snapshot::pg_snapshot) as visible
      from unnest(${cases.map(({ xid }) => xid)}::text[], ${
      cases.map(({ snapshot }) => snapshot)
    }::text[]) with ordinality c (xid, snapshot, n) order by n`;
    const results = await client.batch(
      cases.flatMap(({ snapshot, xid }) => [
        { sql: "UPDATE _libsql_sync SET snapshot = ?", args: [snapshot] },
        { sql: CONTAINED, args: [`${xid}:${seconds}:e-1`] },
      ]),
      "write",
    );
    const row = { epoch: "e-1", walk_done: 1, source_time };
    for (const [at, { snapshot, xid }] of cases.entries()) {
      const expected = visible[at]!.visible;
      const where = `${xid} in ${snapshot} (SEED=${seed()})`;
      assertEquals(
        Number(results[2 * at + 1]!.rows[0]!.contained) === 1,
        expected,
        where,
      );
      const found = contains({ ...row, snapshot }, `${xid}:${seconds}:e-1`);
      assertEquals(found, expected, where);
    }
    assert(visible.some(({ visible }) => visible));

    // Each other condition alone, and what is no bookmark.
    const snapshot = "10:14:12";
    const ask = async (bookmark: string, changed: Record<string, unknown>) => {
      const now = { ...row, snapshot, ...changed };
      const [, asked] = await client.batch([
        {
          sql:
            "UPDATE _libsql_sync SET snapshot = ?, epoch = ?, walk_done = ?, source_time = ?",
          args: [now.snapshot, now.epoch, now.walk_done, now.source_time],
        },
        { sql: CONTAINED, args: [bookmark] },
      ], "write");
      const found = Number(asked!.rows[0]!.contained) === 1;
      assertEquals(contains(now, bookmark), found, bookmark);
      return found;
    };
    const bookmark = `11:${seconds}:e-1`;
    assertEquals(await ask(bookmark, {}), true);
    assertEquals(await ask(bookmark, { walk_done: 0 }), false);
    assertEquals(await ask(bookmark, { epoch: "e-2" }), false);
    assertEquals(await ask(bookmark, { epoch: "-1" }), false);
    assertEquals(await ask(bookmark, { epoch: "" }), false);
    assertEquals(await ask(`11:${seconds + 1}:e-1`, {}), false);
    for (const missing of ["snapshot", "source_time"]) {
      assertEquals(await ask(bookmark, { [missing]: null }), false);
    }
    for (const text of ["", ":", "11", `x:${seconds}:e-2`, "e-1", "11::"]) {
      assertEquals(await ask(text, {}), false);
    }
  } finally {
    client.close();
    await sqld.kill();
    await sql.end();
  }
});

Deno.test("a bookmark is contained when its transaction's changes are, however late it commits", async () => {
  await using stack = await startWalked();
  const long = connect(stack);
  try {
    await long`begin`;
    await long`insert into item values (1, 'long', 1)`;
    const [first] = await long`select libsql_sync.bookmark() as bookmark`;
    const late = first!.bookmark as string;
    assertEquals(await contained(stack, [late]), [false]);

    const early = await write(stack, 2);
    await stack.drain();
    // A later id is here, and an earlier one is not.
    assertEquals(await contained(stack, [late, early]), [false, true]);
    assertEquals((await stack.row()).drained, 1);

    // Of the top-level transaction, also where a savepoint asks.
    await long`savepoint inner_one`;
    await long`update item set name = 'longer' where id = 1`;
    const [again] = await long`select libsql_sync.bookmark() as bookmark`;
    assertEquals(again!.bookmark, late);
    await long`rollback to inner_one`;
    await long`commit`;
    assertEquals(await contained(stack, [late, early]), [false, true]);
    // One that wrote nothing, begun after the commit.
    const [after] = await stack.sql`select libsql_sync.bookmark() as bookmark`;
    await stack.drain();
    const bookmarks = [late, early, after!.bookmark as string];
    assertEquals(await contained(stack, bookmarks), [true, true, true]);
    assertEquals(await stack.assertEqual(), 2);
  } finally {
    await long.end({ timeout: 1 });
  }
});

Deno.test("a batch that leaves messages in the queue contains what the last drained one did, and no more", async () => {
  await using stack = await startWalked();
  const before = await write(stack, 1);
  await stack.drain();
  const written: string[] = [];
  for (let id = 2; id <= 9; id++) written.push(await write(stack, id));
  const all = () => contained(stack, [before, ...written]);
  const none = written.map(() => false);
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    const first = await hand.batch({ rows: 3 });
    assertEquals([first.drained, first.messages], [false, 3]);
    assertEquals(await hand.apply(first), "applied");
    assertEquals(await all(), [true, ...none]);

    // Another version of the same position is drained, and does not land.
    const whole = await hand.batch();
    assertEquals(whole.drained, true);
    const half = await hand.batch({ rows: 2 });
    assertEquals(half.drained, false);
    assertEquals(await hand.apply(half), "applied");
    assertEquals(await all(), [true, ...none]);

    const rest = await hand.batch();
    assertEquals(rest.drained, true);
    assertEquals(await hand.apply(rest), "applied");
    assertEquals(await all(), [true, ...written.map(() => true)]);
    await hand.source.release(hand.lease);
  });
  // The first batch of an epoch may be one that leaves some.
  await stack.drain();
  await stack
    .sql`select libsql_sync.reset(json_build_object('expected', epoch, 'wipe', false, 'reason', 'test')) from libsql_sync.chain`;
  await insertItems(stack, 20, 25);
  await stack.withParts(async (parts) => {
    const hand = new Hand(parts);
    await hand.claim();
    await parts.replica.adopt({
      epoch: (await parts.source.lease(hand.lease)).epoch,
      from: String((await stack.row()).epoch),
      wipe: false,
    });
    const first = await hand.batch({ rows: 2 });
    assertEquals([first.drained, first.snapshot], [false, "3:3:"]);
    assertEquals(await hand.apply(first), "applied");
    await hand.source.release(hand.lease);
  });
  await stack.drain();
  await stack.assertEqual();
});

Deno.test("a new epoch contains nothing until it was walked, and no bookmark of the old one", async () => {
  await using stack = await startWalked();
  const old = await write(stack, 1);
  await stack.drain();
  await stack
    .sql`select libsql_sync.reset(json_build_object('expected', epoch, 'wipe', false, 'refill', false, 'reason', 'test')) from libsql_sync.chain`;
  // The replica has not followed.
  const fresh = await write(stack, 2);
  assertEquals(await contained(stack, [old, fresh]), [true, false]);
  await stack.drain();
  const { drained, walk_done } = await stack.row();
  assertEquals([drained, walk_done], [1, 0]);
  assertEquals(await contained(stack, [old, fresh]), [false, false]);

  await stack.sql`update libsql_sync.chain set refill = true`;
  await stack.walk();
  await stack.drain();
  assertEquals(await contained(stack, [old, fresh]), [false, true]);
  await stack.assertEqual();
});

Deno.test("a replica that lost commits contains what it still has", async () => {
  await using stack = await startWalked();
  const kept = await write(stack, 1);
  await stack.drain();
  const rewind = await saveReplica(stack);
  const lost = await write(stack, 2);
  await stack.drain();
  assertEquals(await contained(stack, [kept, lost]), [true, true]);
  await rewind();
  assertEquals(await contained(stack, [kept, lost]), [true, false]);
  await stack.drain();
  assertEquals(await contained(stack, [kept, lost]), [true, true]);
  await stack.assertEqual();
});

Deno.test("a row from before a source was put back contains none of its new transactions", async () => {
  await using stack = await startWalked();
  const bookmark = await write(stack, 1);
  await stack.drain();
  const [xid, seconds, epoch] = bookmark.split(":");
  const { source_time } = await stack.row();
  const seen = Math.floor(Date.parse(String(source_time)) / 1000);
  assert(Number(seconds) <= seen);
  // The same id given again, the chain being the restored one.
  const again = `${xid}:${seen + 1}:${epoch}`;
  assertEquals(await contained(stack, [bookmark, again]), [true, false]);
});

Deno.test("bookmark() may be called by who writes, and shows nothing else of ours", async () => {
  await using stack = await startWalked();
  await stack.sql.unsafe(
    "grant select, insert on item to authenticated, anon",
  );
  const as = async (role: string, text: string) =>
    await stack.sql.begin(async (sql) => {
      await sql.unsafe(`set local role ${role}`);
      await sql`insert into item values (${
        role === "anon" ? 2 : 1
      }, 'mine', 1) on conflict do nothing`;
      const rows = await sql.unsafe(text);
      return String(Object.values(rows[0]!)[0]);
    }).catch(({ code }) => String(code));
  const ask = "select libsql_sync.bookmark()";
  const bookmark = await as("authenticated", ask);
  await stack.drain();
  assertEquals(await contained(stack, [bookmark]), [true]);
  assertEquals(await as("anon", ask), "42501");
  for (
    const text of [
      "select libsql_sync.status()",
      "select epoch from libsql_sync.chain",
      "select libsql_sync.claim('{}')",
    ]
  ) assertEquals(await as("authenticated", text), "42501", text);
  // attach() takes back what was granted, and not this.
  await stack.sql`select libsql_sync.attach()`;
  assert((await as("authenticated", ask)).includes(":"));
});

Deno.test(`no bookmark is contained before its rows, under writers with long transactions and batches of any size (SEED=${seed()})`, async () => {
  await using stack = await startWalked();
  let state = seed();
  const random = (below: number) => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x6d2b79f5 | 0;
    return ((state ^ (state >>> 13)) >>> 0) % below;
  };
  const written: { bookmark: string; id: number; value: number }[] = [];
  let isWriting = true;
  let value = 0;
  const writer = async (id: number) => {
    const sql = connect(stack);
    try {
      for (let round = 0; round < 25; round++) {
        await sql`begin`;
        const mine = ++value;
        const isLast = random(2) === 0;
        const ask = async () => {
          const [row] = await sql`select libsql_sync.bookmark() as bookmark`;
          return row!.bookmark as string;
        };
        // The id may be drawn long before, or long after the write.
        let bookmark = isLast ? "" : await ask();
        if (random(2) === 0) await sql`select pg_sleep(${random(60) / 1000})`;
        await sql`insert into item values (${id}, 'w', ${mine}) on conflict (id) do update set size = excluded.size`;
        if (random(3) === 0) {
          await sql`savepoint s`;
          await sql`update item set size = size + 100000 where id = ${id}`;
          await sql`rollback to s`;
        }
        if (random(3) === 0) await sql`select pg_sleep(${random(60) / 1000})`;
        if (isLast) bookmark = await ask();
        if (random(5) === 0) {
          await sql`rollback`;
        } else {
          await sql`commit`;
          written.push({ bookmark, id, value: mine });
        }
      }
    } finally {
      await sql.end({ timeout: 1 });
    }
  };
  const worker = async () => {
    await stack.withParts(async (parts) => {
      const hand = new Hand(parts);
      while (isWriting) {
        const claim = await hand.claim({
          rows: random(3) === 0 ? 100 : 1 + random(4),
        });
        if (claim.do !== "batch") continue;
        assertEquals(await hand.apply(claim), "applied");
      }
      await hand.source.release(hand.lease);
    });
    await expireLease(stack);
  };
  let seen = 0;
  let undrained = 0;
  const look = async () => {
    const known = written.filter((_, at) =>
      at + 20 > written.length || random(3) === 0
    );
    const [row, rows, ...asked] = await stack.client.batch([
      "SELECT * FROM _libsql_sync",
      "SELECT id, size FROM item",
      ...known.map(({ bookmark }) => ({ sql: CONTAINED, args: [bookmark] })),
    ], "read");
    const sizes = new Map(
      rows!.rows.map((r) => [Number(r.id), Number(r.size)]),
    );
    for (const [at, { bookmark, id, value }] of known.entries()) {
      const isIn = Number(asked[at]!.rows[0]!.contained) === 1;
      assertEquals(contains({ ...row!.rows[0] }, bookmark), isIn);
      if (!isIn) continue;
      seen += 1;
      if (Number(row!.rows[0]!.drained) === 0) undrained += 1;
      // Its own row is only ever overwritten by its own later ones.
      assert(
        (sizes.get(id) ?? 0) >= value,
        `${bookmark} of item ${id} = ${value}, found ${sizes.get(id)} at ${
          JSON.stringify(row!.rows[0])
        }`,
      );
    }
  };
  const reader = async () => {
    while (isWriting) await look();
  };
  const all = Promise.all([worker(), reader()]);
  await Promise.race([all, Promise.all([1, 2, 3, 4, 5, 6].map(writer))]);
  isWriting = false;
  await all;
  await stack.drain();
  await look();
  assert(seen > written.length && undrained > 0, `${seen}, ${undrained}`);
  const bookmarks = written.map(({ bookmark }) => bookmark);
  assertEquals(await contained(stack, bookmarks), bookmarks.map(() => true));
  await stack.assertEqual();
});

Deno.test("a reader that waits up to 300 ms and else asks the source always reads its writes", async () => {
  await using stack = await startWalked();
  const { client: edge, sql: source } = stack;
  // As in lib/README.md.
  const readItem = async (id: number, bookmark: string) => {
    for (const end = Date.now() + 300; Date.now() < end;) {
      const [asked, item] = await edge.batch([
        { sql: CONTAINED, args: [bookmark] },
        { sql: "SELECT name FROM item WHERE id = ?", args: [id] },
      ], "read");
      if (asked!.rows[0]?.contained === 1) return ["edge", item!.rows[0]?.name];
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    const [item] = await source`select name from item where id = ${id}`;
    return ["source", item?.name];
  };
  const first = await write(stack, 1);
  assertEquals(await readItem(1, first), ["source", "bookmarked"]);
  await stack.drain();
  assertEquals(await readItem(1, first), ["edge", "bookmarked"]);
  // It comes while the reader waits, or is read at the source.
  const second = await write(stack, 2);
  const reading = readItem(2, second);
  await stack.sync();
  assertEquals((await reading)[1], "bookmarked");
  await until(
    "the replica contains it",
    async () => (await contained(stack, [second]))[0]!,
  );
});
