/** No value is at rest anywhere but in the user's tables and the replica's. */

import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { SUPERUSER } from "../../lib/dev/postgres.ts";
import { expireLease, saveReplica, syncWith } from "../db/support/chain.ts";
import { type RawSchema, Servers, Stack } from "../db/support/stack.ts";

const serverLog: string[] = [];
const servers = new Servers({
  log: (line) => serverLog.push(line),
  settings: { log_min_messages: "info", log_error_verbosity: "verbose" },
});
Deno.test.afterAll(() => servers.stop());

/** A column: its type, the declared one, a value, and what of it may be found nowhere. */
type Marked = readonly [
  type: string,
  declared: "TEXT" | "INTEGER" | "JSON" | "BOOLEAN",
  sql: string,
  mark: string,
];
const MARKED: Readonly<Record<string, Marked>> = {
  t: ["text", "TEXT", "'marked-t'", "marked-t"],
  v: ["varchar(20)", "TEXT", "'marked-v'", "marked-v"],
  c: ["char(20)", "TEXT", "'marked-c'", "marked-c"],
  dom: ["word", "TEXT", "'marked-dom'", "marked-dom"],
  i: ["bigint", "INTEGER", "7319028461501", "7319028461501"],
  n: ["numeric", "TEXT", "7319028461502.25", "7319028461502"],
  f: ["float8", "TEXT", "7319028461503.5", "7319028461503"],
  m: ["money", "TEXT", "7319028461.57", "461.57"],
  d: ["date", "TEXT", "'2071-03-19'", "2071-03-19"],
  at: ["timestamptz", "TEXT", "'2072-04-18 21:43:07.456789Z'", "07.456789"],
  span: ["interval", "TEXT", "'71:31:59.123'", "71:31:59"],
  u: [
    "uuid",
    "TEXT",
    "'5ec4e755-0000-4000-8000-00000000aaaa'",
    "5ec4e755-0000",
  ],
  ip: ["inet", "TEXT", "'203.0.113.77'", "203.0.113.77"],
  raw: ["bytea", "TEXT", "'\\x5ec4e7aa015ec4e7'", "5ec4e7aa01"],
  bits: ["varbit", "TEXT", "B'110100111011101101'", "110100111011101101"],
  around: ["int8range", "TEXT", "'[7319028461504,7319028461509)'", "461504"],
  words: ["tsvector", "TEXT", "'markedword'", "markedword"],
  js: ["json", "JSON", `'{"a": "marked-js"}'`, "marked-js"],
  jb: ["jsonb", "JSON", `'{"marked-key": ["marked-jb"]}'`, "marked-"],
  list: ["text[]", "JSON", "array['marked-list']", "marked-list"],
  tuple: ["pair", "JSON", "'(5,marked-tuple)'", "marked-tuple"],
  mood: ["mood", "TEXT", "'marked-mood'", "marked-mood"],
  // A cast of the user's, which raises with the value in its message.
  moods: ["mood[]", "JSON", "array['happy']::mood[]", "marked-"],
  // What the replica's column cannot hold.
  strict: ["text", "INTEGER", "'5'", "marked-strict"],
  large: ["text", "TEXT", "'marked-large'", "marked-large"],
};
const MARKS = [...new Set(Object.values(MARKED).map(([, , , mark]) => mark))];

const schema: RawSchema = {
  tables: {
    marked: {
      key: "id",
      columns: {
        id: "INTEGER",
        ...Object.fromEntries(
          Object.entries(MARKED).map(([name, [, declared]]) => [
            name,
            declared,
          ]),
        ),
      },
      // What is indexed is written by statements of its own.
      indexes: ["t", ["i", "js"]],
    },
  },
};
const SETUP = `
  create type pair as (x int, y text);
  create type mood as enum ('happy', 'marked-mood');
  create domain word as text check (value like 'marked%');
  create function public.mood_json(mood) returns json language plpgsql immutable as $$
  begin
    if $1 = 'marked-mood' then raise exception 'not %', $1 using detail = $1, errcode = 'data_exception'; end if;
    return to_json($1::text);
  end $$;
  create table marked (id bigint primary key, ${
  Object.entries(MARKED).map(([name, [type]]) => `${name} ${type}`).join(", ")
});
`;

/** Rows by what becomes of them. */
const ROWS = {
  held: 1,
  notHeld: 2,
  unreadable: 3,
  refused: 4,
  tooLarge: 5,
} as const;
const PARKED = [
  ROWS.notHeld,
  ROWS.unreadable,
  ROWS.refused,
  ROWS.tooLarge,
].map((id) => [String(id)]);

const INSERT = `insert into marked select id, ${
  Object.entries(MARKED).map(([name, [, , sql]]) =>
    name === "strict"
      ? `case id when ${ROWS.notHeld} then 'marked-strict' else ${sql} end`
      : name === "moods"
      ? `case id when ${ROWS.unreadable} then array['marked-mood']::mood[] else ${sql} end`
      : name === "large"
      ? `case id when ${ROWS.tooLarge} then repeat('marked-large', 500000) else ${sql} end`
      : sql
  ).join(", ")
} from generate_series(1, 5) id;`;

/** The places where no mark may be. */
class Places implements AsyncDisposable {
  /** Answers of the worker. */
  readonly said: unknown[] = [];
  readonly #admin: postgres.Sql;

  constructor(private readonly stack: Stack) {
    const { server, database } = stack;
    this.#admin = postgres(server.url({ user: SUPERUSER, database }), {
      max: 1,
      onnotice: () => {},
    });
  }

  /** No mark is in any of them. */
  async check(when: string): Promise<void> {
    const texts: [place: string, text: string][] = [
      ["the server's log", serverLog.join("\n")],
      ["the worker's log", JSON.stringify(this.stack.log)],
      ["the worker's answers", JSON.stringify(this.said)],
      ...await this.#tables(),
      ...await this.#replica(),
    ];
    const found = texts.flatMap(([place, text]) =>
      MARKS.filter((mark) => text.includes(mark))
        .map((mark) => `${mark} is in ${place}`)
    );
    assertEquals([...found, ...await this.#files()], [], when);
  }

  /** Every row of every table of ours, and of what we call. */
  async #tables(): Promise<[string, string][]> {
    const tables = await this.#admin`
      select c.oid::regclass::text as name from pg_class c
      where c.relkind in ('r', 'p') and c.relnamespace::regnamespace::text in ('pgmq', 'libsql_sync', 'cron', 'net')`;
    return await Promise.all(tables.map(async ({ name }) => {
      const [row] = await this.#admin.unsafe(
        `select coalesce(string_agg(t::text, ' '), '') as text from ${name} t`,
      );
      return [name, row!.text] as [string, string];
    }));
  }

  /** What was there for a moment is still in the tables' and indexes' files. */
  async #files(): Promise<string[]> {
    await this.#admin`checkpoint`;
    const found = await this.#admin`
      select m.mark || ' is in the file of ' || f.oid::regclass as found
      from (
        select c.oid, pg_read_binary_file(pg_relation_filepath(c.oid), 0, 100000000, true) as bytes from pg_class c
        where c.relkind in ('r', 'i', 't') and (
          c.relnamespace::regnamespace::text in ('pgmq', 'libsql_sync') or c.oid in (
            select t.reltoastrelid from pg_class t where t.relnamespace::regnamespace::text in ('pgmq', 'libsql_sync')))
      ) f, unnest(${MARKS}::text[]) m (mark)
      where position(convert_to(m.mark, 'UTF8') in f.bytes) > 0`;
    return found.map((row) => row.found);
  }

  /** The replica's tables of ours. */
  async #replica(): Promise<[string, string][]> {
    const { client } = this.stack;
    const { rows } = await client.execute(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '\\_libsql\\_sync%' ESCAPE '\\'",
    );
    return await Promise.all(rows.map(async ({ name }) => {
      const { rows } = await client.execute(`SELECT * FROM "${name}"`);
      return [`the replica's ${name}`, JSON.stringify(rows)] as [
        string,
        string,
      ];
    }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#admin.end({ timeout: 1 });
  }
}

/** The letters' keys, in order. */
async function parked(stack: Stack): Promise<unknown[]> {
  return (await stack.deadLetters()).map(({ key }) => key)
    .sort((a, b) => Number(a) - Number(b));
}

Deno.test("a value of any type is nowhere in queues, archives, letters, libsql_sync and logs, whatever becomes of its row", async () => {
  await using stack = await Stack.start(servers, { schema, setup: SETUP });
  await stack.run(
    "create cast (mood as json) with function public.mood_json(mood)",
    { user: SUPERUSER },
  );
  await using places = new Places(stack);
  const { sql, client } = stack;
  const post = async (path: string) => {
    places.said.push((await stack.post(path)).body);
  };
  const refuse = () =>
    client.execute(
      `CREATE TRIGGER IF NOT EXISTS by_hand BEFORE INSERT ON marked WHEN NEW.id = ${ROWS.refused} BEGIN SELECT RAISE(ABORT, 'by hand'); END`,
    );
  await stack.walk();
  await refuse();

  await stack.run(INSERT);
  await places.check("queued");
  // Each time that a batch is about to be applied, and was.
  let applies = 0;
  await syncWith(stack, ({ replica }) => ({
    replica: {
      async apply(...args) {
        await places.check("claimed");
        const applied = await replica.apply(...args);
        applies += 1;
        await places.check("applied");
        return applied;
      },
    },
  }));
  await expireLease(stack);
  await stack.drain();
  assert(applies > 0);
  assertEquals(await parked(stack), PARKED);
  await places.check("synced");
  const { rows: [held] } = await client.execute("SELECT * FROM marked");
  for (const [name, [, , , mark]] of Object.entries(MARKED)) {
    if (name === "moods" || name === "strict") continue;
    assert(String(held![name]).includes(mark), `${name}: ${held![name]}`);
  }

  // Once more, by an update of everything and of keys, and a delete.
  await sql.unsafe(
    `update marked set ${
      Object.entries(MARKED).filter(([name]) =>
        !["strict", "moods", "large"].includes(name)
      ).map(([name]) => `${name} = null`).join(", ")
    } where id = 1`,
  );
  await sql`update marked set t = 'marked-t', js = '{"b": "marked-js"}', id = id + 10`;
  await places.check("updated");
  await stack.drain();
  await sql`update marked set id = id - 10`;
  await sql`delete from marked where id = 1`;
  await stack.drain();
  assertEquals(await parked(stack), PARKED);
  await places.check("updates synced");

  // What a failover lost is put back.
  const failOver = await saveReplica(stack);
  await stack.run(`delete from marked; ${INSERT}`);
  await stack.drain();
  await failOver();
  await stack.drain();
  assertEquals(await parked(stack), PARKED);
  await places.check("put back");

  // Walks of every kind, and an operator who looks.
  for (const path of ["/verify", "/verify?repair=true", "/backfill"]) {
    await stack.finish(path);
    await post(path);
  }
  await sql`select libsql_sync.redrive()`;
  await stack.drain();
  await stack.walk();
  assertEquals(await parked(stack), PARKED);
  await sql`select libsql_sync.row_of_letter(id) from libsql_sync.dead_letters()`;
  places.said.push(await sql`select libsql_sync.status()`);
  places.said.push(await sql`select * from libsql_sync.doctor()`);
  await post("/sync");
  await places.check("walked");

  // Rows that come by the walk alone.
  await post("/nuke");
  await refuse().catch(() => {});
  await stack.walk();
  await stack.drain();
  await places.check("nuked and walked");
});

Deno.test("a mark is found where it is", async () => {
  await using stack = await Stack.start(servers, { schema, setup: SETUP });
  await using places = new Places(stack);
  await places.check("nothing was written");
  await stack
    .sql`select pgmq.send('replicate_data_libsql'::text, '{"x": "marked-t"}'::jsonb)`;
  await stack.sql`delete from pgmq.q_replicate_data_libsql`;
  const found = await places.check("").then(() => "", String);
  assert(
    found.includes(
      "marked-t is in the file of pgmq.q_replicate_data_libsql",
    ),
    found,
  );
});
