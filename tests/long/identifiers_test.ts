/** Names that SQL, PL/pgSQL or SQLite could take for something else stay names. */

import { assert, assertEquals } from "@std/assert";
import { runSchema } from "../../lib/cli/schema.ts";
import { type RawSchema, Servers, Stack } from "../db/support/stack.ts";
import { copyProject } from "../db/support/project.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

const LONG = "é".repeat(31) + "x";
/** Names of tables, and of the columns in them. */
const NAMES = [
  ...[
    `a"b`,
    `a'b`,
    `a''b`,
    `"`,
    `""`,
    `'`,
    `\\`,
    `a\\'b`,
    `E'\\x27'`,
    "`",
    "[a]",
  ],
  ...[
    `; drop table victim; --`,
    `"; drop table victim; --`,
    `'; drop table victim; --`,
  ],
  ...[
    `") cascade; drop table victim; --`,
    `/*`,
    `*/`,
    `--`,
    `$$`,
    `$body$`,
    `$sql$`,
  ],
  ...[
    "$1",
    "$2",
    "?",
    "?1",
    ":x",
    "@x",
    "%s",
    "%I",
    "%L",
    "%1$s",
    "%",
    "%%",
    "${x}",
    "{}",
  ],
  ...[
    "ünïcödé 😀",
    "\u202e",
    "\u00a0",
    " a ",
    "a.b",
    "a,b",
    "(a)",
    "null",
  ],
  ...[
    "select",
    "table",
    "user",
    "order",
    "default",
    "UPPER",
    "1a",
    LONG,
    "x".repeat(63),
  ],
  // Names within our own statements, on either side.
  ...[
    "new_rows",
    "old_rows",
    "changed",
    "live",
    "messages",
    "listed",
    "ours",
    "message",
  ],
  ...[
    "kind",
    "found",
    "cells",
    "respelled",
    "touched_key",
    "live_key",
    "tg_op",
    "tg_argv",
  ],
  ...[
    "k",
    "t",
    "n",
    "o",
    "c",
    "q",
    "r",
    "x",
    "m",
    "w",
    "l",
    "d",
    "e",
    "f",
    "key",
    "value",
  ],
  ...[
    "keys",
    "place",
    "bytes",
    "excluded",
    "changes",
    "json_each",
    "pragma_page_count",
  ],
  ...[
    "rowid",
    "oid",
    "k0",
    "k1",
    "t0",
    "t1",
    "libsql_sync",
    "pg_catalog",
    "tableoid2",
  ],
];

const ident = (name: string) => `"${name.replaceAll('"', '""')}"`;
const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** Those that tables bear here; all are borne by columns. */
const TABLES = NAMES.filter((name) =>
  /^(a"b|a'b|"|'|.*drop.*|.*x27.*|\/\*|--|\$\$|\$body\$|\$1|\?|%s|%I|%|\$\{x\}| a |a\.b|select|UPPER|é.*|x{63})$/
    .test(name) ||
  /^(new_rows|live|messages|listed|t|r|n|k|excluded|keys|changes|rowid|libsql_sync)$/
    .test(name)
);

/** A table with its two keys and its other columns. */
interface Named {
  readonly name: string;
  readonly key: string;
  readonly other: string;
  readonly columns: readonly string[];
}

/** One table for each of those names, with columns of all names among them. */
function tables(): Named[] {
  const each = Math.ceil(NAMES.length / TABLES.length);
  return TABLES.map((name, at) => {
    const from = at * each % NAMES.length;
    const [key = name, ...others] = NAMES.slice(from, from + each);
    // A column may have its table's name.
    const columns = [...new Set([...others, name].filter((of) => of !== key))];
    return { name, key, other: columns[0]!, columns };
  });
}

Deno.test("names of tables and columns stay names, from the trigger to the replica and back", async () => {
  const listed = tables();
  const schema: RawSchema = { tables: {} };
  let setup = "create table public.victim (id int primary key);";
  for (const [at, { name, key, other, columns }] of listed.entries()) {
    schema.tables[name] = {
      key: [key, "part"],
      columns: {
        [key]: "INTEGER",
        part: "TEXT",
        ...Object.fromEntries(
          columns.map((column) => [column, at % 2 ? "TEXT" : "JSON"]),
        ),
      },
      indexes: [[other, "part"]],
    };
    setup += `create table public.${ident(name)} (${
      ident(key)
    } bigint, part text, ${ident(other)} text,
      primary key (${ident(key)}, part));`;
  }
  await using stack = await Stack.start(servers, { schema, setup });
  const { sql } = stack;
  const each = async (
    statement: (table: Named) => string,
  ) => {
    for (const table of listed) {
      await sql.unsafe(statement(table)).catch((error) => {
        throw new Error(`${table.name}: ${error.message}`, { cause: error });
      });
    }
  };
  const value = literal(NAMES.join(" "));
  await each(({ name, key, other }) =>
    `insert into public.${ident(name)} (${ident(key)}, part, ${ident(other)})
     select n, ${literal(name)}, ${value} from generate_series(1, 3) n`
  );
  await stack.drain();
  await stack.walk();
  assertEquals(await stack.assertEqual(), 3 * listed.length);
  await each(({ name, key, other }) =>
    `update public.${ident(name)} set ${ident(other)} = 'changed' where ${
      ident(key)
    } = 1`
  );
  await each(({ name, key }) =>
    `delete from public.${ident(name)} where ${ident(key)} = 2`
  );
  await each(({ name, key }) =>
    `update public.${ident(name)} set ${ident(key)} = 20 where ${
      ident(key)
    } = 3`
  );
  await stack.settle();
  assertEquals(await stack.assertEqual(), 2 * listed.length);

  // What a walk finds, and mends.
  for (const { name, key, other } of listed) {
    await stack.client.batch([
      `UPDATE ${ident(name)} SET ${ident(other)} = 'mine' WHERE ${
        ident(key)
      } = 1`,
      `INSERT INTO ${ident(name)} (${ident(key)}, part) VALUES (5, 'ghost')`,
      `DELETE FROM ${ident(name)} WHERE ${ident(key)} = 20`,
    ], "write");
  }
  assertEquals((await stack.finish("/verify")).differences, 3 * listed.length);
  await stack.finish("/verify?repair=true");
  assertEquals(await stack.assertEqual(), 2 * listed.length);
  const [, last] = listed;
  const one = await stack.finish(
    `/backfill?table=${encodeURIComponent(last!.name)}`,
  );
  assertEquals(Object.keys(one.tables as object), [last!.name]);

  await each(({ name }) => `truncate public.${ident(name)}`);
  await each(({ name, key }) =>
    `insert into public.${ident(name)} (${ident(key)}, part) values (7, '')`
  );
  // A table that has rows again is walked.
  await stack.walk();
  await stack.settle();
  assertEquals((await stack.post("/nuke")).status, 200);
  await stack.walk();
  assertEquals(await stack.assertEqual(), listed.length);
  await sql`select from public.victim`;

  // What is set aside, and tried again, by name.
  const rule = (at: number) => `refuses_${at}`;
  await stack.client.batch(
    listed.map(({ name, other }, at) =>
      `CREATE TRIGGER ${rule(at)} BEFORE UPDATE ON ${ident(name)} WHEN NEW.${
        ident(other)
      } IN ('refused', '"refused"') BEGIN SELECT RAISE(ABORT, 'by hand'); END`
    ),
    "write",
  );
  await each(({ name, other }) =>
    `update public.${ident(name)} set ${ident(other)} = 'refused'`
  );
  await stack.drain();
  await stack.client.batch(
    listed.map((_, at) => `DROP TRIGGER ${rule(at)}`),
    "write",
  );
  assertEquals(
    (await stack.deadLetters()).map(({ table, key }) => [table, key]).sort(),
    listed.map(({ name }) => [name, ["7", ""]]).sort(),
  );
  const [tried] = await sql`select libsql_sync.redrive() as letters`;
  assertEquals(Number(tried!.letters), listed.length);
  // A walk for each table: more than one sync has calls for.
  for (let tries = 0; (await stack.deadLetters()).length > 0; tries++) {
    assert(tries < 10, "the letters are closed");
    await stack.sync();
  }
  assertEquals(await stack.assertEqual(), listed.length);
  await sql`select libsql_sync.status()`;
  const errors =
    await sql`select found from libsql_sync.doctor() where level = 'error' and section in ('tables', 'triggers')`
      .catch(() => []);
  assertEquals([...errors], []);
  await sql`select libsql_sync.attach()`;
});

Deno.test("runSchema() writes and reads names of any kind", async () => {
  const database = await servers.database({ migrated: true });
  const server = await servers.postgres();
  await using stack = await Stack.start(servers, { database });
  const names = NAMES.filter((name) =>
    !/^(json_each|pragma_page_count|-.*)$/.test(name)
  );
  await stack.run(
    names.map((name) =>
      `create table public.${ident(name)} (${
        ident(name)
      } bigint primary key, note text);`
    ).join("\n"),
  );
  const folder = await Deno.makeTempDir();
  const root = new URL(`file://${folder}/`);
  await copyProject(root);
  const said: string[] = [];
  const run = (args: string[]) =>
    runSchema(args, {
      root,
      pgmqUrl: server.url({ database }),
      now: () => Date.UTC(2026, 10, 22),
      print: (text) => said.push(text),
      printError: (text) => said.push(text),
    });
  try {
    assertEquals(
      await run(["--from", "postgres", ...names, "--migration"]),
      0,
      said.join("\n"),
    );
    const written: RawSchema = JSON.parse(
      await Deno.readTextFile(new URL("schema.json", root)),
    );
    for (const name of names) {
      assertEquals(written.tables[name]?.columns[name], "INTEGER", name);
    }
    const migrations: string[] = [];
    for await (
      const { name } of Deno.readDir(new URL("supabase/migrations/", root))
    ) {
      migrations.push(name);
    }
    const file = migrations.sort().at(-1)!;
    await stack.run(
      await Deno.readTextFile(new URL(`supabase/migrations/${file}`, root)),
    );
    assertEquals(await run(["--check"]), 0, said.join("\n"));
    const [row] = await stack
      .sql`select count(*)::int as triggers from pg_trigger t
      where t.tgfoid in (select libsql_sync.trigger_functions())`;
    assert(row!.triggers >= 4 * names.length);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("keys() pages through every key when its columns bear the names of its own statement", async () => {
  const key = ["t1", "t0", "k1", "k0"];
  await using stack = await Stack.start(servers, {
    schema: {
      tables: {
        keys: {
          key,
          columns: Object.fromEntries(key.map((name) => [name, "INTEGER"])),
          indexes: [],
        },
      },
    },
    setup:
      "create table public.keys (t1 int, t0 int, k1 int, k0 int, primary key (t1, t0, k1, k0))",
  });
  // The order of the columns' texts is another than that of their numbers.
  await stack
    .sql`insert into keys select n % 13, -n, 500 - n, n from generate_series(1, 500) n`;
  await stack.walk();
  await stack.withParts(async ({ replica }) => {
    const found: string[] = [];
    let after: readonly string[] | null = null;
    for (let last = false; !last;) {
      const page: Awaited<ReturnType<typeof replica.keys>> = await replica.keys(
        {
          table: "keys",
          half: "back",
          after,
          isCounted: true,
          scrubRows: null,
        },
        { keysMax: 60, rebuilding: [], walkGen: 1 },
      );
      found.push(...page.keys.map((one) => one.join()));
      ({ after, last } = page);
    }
    assertEquals(found.length, 500);
    assertEquals(new Set(found).size, 500);
  });
});
