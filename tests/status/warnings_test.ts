import { assertEquals, assertMatch } from "@std/assert";
import type { SourceStatus } from "../../lib/source/report.ts";
import { reportStatus } from "../../lib/status/status.ts";
import { FINE, HASH, minutesAgo, NOW, PASS, REPLICA } from "./fine_status.ts";

const report = (status: Partial<SourceStatus>) =>
  reportStatus({ ...FINE, ...status }, { now: NOW, here: HASH });

Deno.test("warningsOf() passes on what the catalog shows, with its advice, as attention", () => {
  const { fine, warnings } = report({
    catalog: [{
      name: "table orgs",
      found: "trigger replicate_orgs_libsql is missing",
      advice: "select libsql_sync.attach();",
    }],
  });
  assertEquals(fine, false);
  assertEquals(warnings, [{
    level: "attention",
    found: "table orgs: trigger replicate_orgs_libsql is missing.",
    advice: "select libsql_sync.attach();",
  }]);
});

const DRIFT = { apps: { rows: 9, differing: 2, ghosts: 1 } };
const STALE = { ticked_at: null, stale: true };
const NUKED = { reason: "nuke", wipe: true };
const BROKEN = { reason: "position 5 cannot be repeated", wipe: false };

/** What is found instead of a fine status; each names all of its warnings. */
const CASES: [
  name: string,
  status: Partial<SourceStatus>,
  level: "attention" | "note" | null,
  found?: RegExp,
][] = [
  ["nothing", {}, null],
  ["a pause", { paused: true }, "attention", /^The worker is paused: /],
  [
    "a pause hides that no sync came",
    { paused: true, last_sync: minutesAgo(900), queued: 5 },
    "attention",
    /^The worker is paused: /,
  ],
  ["a dead letter", { dead_letters: 1 }, "attention", /^Parked changes: 1\.$/],
  [
    "dead letters",
    { dead_letters: 10_000 },
    "attention",
    /^Parked changes: 10,000\.$/,
  ],
  [
    "more dead letters than are counted",
    { dead_letters: 10_001 },
    "attention",
    /^Parked changes: more than 10,000\.$/,
  ],
  [
    "no worker",
    { last_sync: null, replica: null },
    "attention",
    /^No worker has called/,
  ],
  // A worker looks now and then even if nothing is queued.
  [
    "no sync for long, without work",
    { last_sync: minutesAgo(31) },
    "note",
    /last sync was 31 min ago\.$/,
  ],
  [
    "no sync for long, with changes",
    { last_sync: minutesAgo(31), queued: 1 },
    "attention",
    /31 min ago, though there is work\.$/,
  ],
  [
    "no sync for long, with a walk that waits",
    { last_sync: minutesAgo(31), waiting_walks: [PASS] },
    "attention",
    /though there is work\.$/,
  ],
  [
    "no sync for long, with a walk",
    { last_sync: minutesAgo(31), walk: { ...PASS, ended_at: null } },
    "attention",
    /though there is work\.$/,
  ],
  ["a sync not so long ago", { last_sync: minutesAgo(30), queued: 1 }, null],
  [
    "no cron",
    {
      last_sync: minutesAgo(26),
      heartbeat: { ...STALE, silent: "cron" },
    },
    "attention",
    /last sync was 26 min ago: the cron is silent\.$/,
  ],
  [
    "a cron that reaches no worker",
    {
      last_sync: minutesAgo(26),
      heartbeat: { ...STALE, silent: "worker" },
    },
    "attention",
    /ago: the cron calls, but no worker answers\.$/,
  ],
  [
    "another schema here",
    { schema: "other", replica: { ...REPLICA, schema_hash: "other" } },
    "attention",
    /^schema\.json here is not the one/,
  ],
  [
    "another schema in the replica",
    { replica: { ...REPLICA, schema_hash: "other" } },
    "attention",
    /^The replica does not have the schema/,
  ],
  [
    "drift that was repaired",
    { last_full_pass: { ...PASS, found: DRIFT } },
    "note",
    /found 3 differences, in apps, and repaired them\.$/,
  ],
  [
    "drift that was found only",
    {
      last_full_pass: { ...PASS, kind: "verify", repair: false, found: DRIFT },
    },
    "attention",
    /found 3 differences, in apps\.$/,
  ],
  [
    "ghosts alone",
    {
      last_full_pass: {
        ...PASS,
        found: { apps: { rows: 9, differing: 0, ghosts: 1 } },
      },
    },
    "note",
    /found 1 differences, in apps, and repaired them\.$/,
  ],
  [
    "a fill, which writes everything",
    { last_full_pass: { ...PASS, kind: "backfill", found: DRIFT } },
    null,
  ],
  [
    "a table that cannot be read",
    {
      last_full_pass: {
        ...PASS,
        found: { apps: { rows: 0, differing: 0, ghosts: 0, failed: "42703" } },
      },
    },
    "attention",
    /could not read table apps \(SQLSTATE 42703\)\.$/,
  ],
  [
    "a new epoch",
    { epoch: "new", last_epoch: { ...NUKED, begun_at: minutesAgo(30) } },
    "note",
    /does not follow the epoch that began 30 min ago\.$/,
  ],
  [
    "an epoch that the replica ignores",
    { epoch: "new", last_epoch: { ...NUKED, begun_at: minutesAgo(31) } },
    "attention",
    /does not follow the epoch/,
  ],
  [
    "a chain that was broken lately",
    { last_epoch: { ...BROKEN, begun_at: minutesAgo(60) } },
    "note",
    /^A new epoch began 1 h ago: position 5 cannot be repeated\.$/,
  ],
  [
    "a chain that was broken a day ago",
    { last_epoch: { ...BROKEN, begun_at: minutesAgo(1440) } },
    null,
  ],
  [
    "tables that are not walked yet",
    { replica: { ...REPLICA, walk_done: 0 } },
    "note",
    /^Not every table was walked yet\.$/,
  ],
  [
    "a replica that is not filled by itself",
    { refill: false, replica: { ...REPLICA, walk_done: 0 } },
    "note",
    /emptied and is not filled\.$/,
  ],
  [
    "a fill that waits",
    {
      refill: false,
      replica: { ...REPLICA, walk_done: 0 },
      waiting_walks: [PASS],
    },
    "note",
    /^Not every table was walked yet\.$/,
  ],
  [
    "a walk that is on",
    { replica: { ...REPLICA, walk_done: 0 }, walk: PASS },
    null,
  ],
];

for (const [name, status, level, found] of CASES) {
  Deno.test(`warningsOf() judges ${name}`, () => {
    const { fine, warnings } = report(status);
    assertEquals(warnings.map(({ level }) => level), level ? [level] : []);
    assertEquals(fine, level !== "attention");
    if (found !== undefined) assertMatch(warnings[0]!.found, found);
  });
}

Deno.test("warningsOf() says first what is wrong at the source, then along the way of a change", () => {
  const { fine, warnings } = report({
    catalog: [{ name: "queue", found: "it is missing", advice: "migrate" }],
    paused: true,
    dead_letters: 2,
    schema: "other",
    last_full_pass: { ...PASS, found: DRIFT },
    last_epoch: { ...BROKEN, begun_at: minutesAgo(1) },
  });
  assertEquals(fine, false);
  assertEquals(warnings.map(({ advice }) => advice), [
    "migrate",
    "select libsql_sync.resume();",
    "deno task dlq list",
    "deno task schema, then the migration, then deploy; or check out the one that is deployed",
    "deploy the worker with that schema.json: its next sync alters the replica",
    null,
    "the walk repairs what was lost",
  ]);
});
