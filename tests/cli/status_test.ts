import { assertEquals } from "@std/assert";
import { formatStatus } from "../../lib/cli/status.ts";
import type { SourceStatus } from "../../lib/source/report.ts";
import { reportStatus } from "../../lib/status/status.ts";

const NOW = Date.parse("2026-11-22T12:00:00Z");
const minutesAgo = (minutes: number) =>
  new Date(NOW - minutes * 60_000).toISOString();
const FINE: SourceStatus = {
  epoch: "0a1b2c3d-0000",
  position: 17,
  paused: false,
  refill: true,
  queued: 0,
  queued_exact: true,
  oldest_change: null,
  dead_letters: 0,
  last_sync: minutesAgo(5),
  heartbeat: { ticked_at: minutesAgo(1), stale: false, silent: null },
  syncing: false,
  schema: "c6ed9492",
  catalog: [],
  replica: {
    epoch: "0a1b2c3d-0000",
    position: 17,
    drained: 1,
    walk_done: 1,
    walk_at: null,
    source_time: minutesAgo(5),
    schema_hash: "c6ed9492",
  },
  walk: null,
  waiting_walks: [],
  last_full_pass: {
    walk_gen: 3,
    kind: "scrub",
    repair: true,
    reason: "for ever",
    tables: ["apps"],
    ended_at: minutesAgo(120),
    found: { apps: { rows: 1000, differing: 0, ghosts: 0 } },
  },
  last_epoch: { reason: "installed", begun_at: minutesAgo(3000), wipe: false },
};
const pass = FINE.last_full_pass!;
const replica = FINE.replica!;
const report = (status: Partial<SourceStatus>) =>
  reportStatus({ ...FINE, ...status }, { now: NOW, here: "c6ed9492" });

Deno.test("reportStatus() calls somebody when the catalog shows what was tampered with", () => {
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

Deno.test("formatStatus() tells a person all there is in few lines", () => {
  assertEquals(formatStatus(report({})), [
    "replica         equal to the source as of 2026-11-22T11:55:00.000Z",
    "position        17 of 17, epoch 0a1b2c3d (installed, 2 d 2 h ago)",
    "lag             0 s",
    "queued          0",
    "dead letters    0",
    "last sync       5 min ago",
    "walk            none",
    "last full pass  scrub 3, ended 2 h ago: 1,000 rows, 0 different",
    "schema          c6ed9492 here, at the source and in the replica",
  ]);
  const lines = formatStatus(report({
    queued: 10000,
    queued_exact: false,
    oldest_change: minutesAgo(1),
    replica: {
      ...replica,
      drained: 0,
      walk_done: 0,
      walk_at: '{"table": "apps", "half": "back"}',
    },
    walk: { ...pass, kind: "backfill", ended_at: null },
    dead_letters: 2,
  }));
  assertEquals(lines.slice(0, 7).filter((_, i) => i !== 1), [
    "replica         not drained, not walked yet",
    "lag             1 min",
    "queued          10,000 or more",
    "dead letters    2",
    "last sync       5 min ago",
    "walk            backfill 3 at apps (back), 1,000 rows, 0 different",
  ]);
  assertEquals(lines.slice(9), [
    "",
    "backfill 3   rows  different  ghosts",
    "apps        1,000          0       0",
    "",
    "! 2 changes are set aside.",
    "  -> deno task dlq list",
  ]);
});

Deno.test("reportStatus() is fine only where nobody has to do anything", () => {
  const drift = { apps: { rows: 9, differing: 2, ghosts: 1 } };
  const cases: [Partial<SourceStatus>, fine: boolean, found: RegExp | null][] =
    [
      [{}, true, null],
      [{ paused: true }, false, /held off/],
      [{ dead_letters: 1 }, false, /1 changes are set aside/],
      [{ dead_letters: 10_001 }, false, /More than 10,000/],
      [{ last_sync: null, replica: null }, false, /No worker has called/],
      // A worker looks now and then even when nothing is queued.
      [{ last_sync: minutesAgo(31) }, true, /last sync was 31 min ago\./],
      [
        { last_sync: minutesAgo(31), queued: 1 },
        false,
        /31 min ago, though there is work/,
      ],
      [
        { last_sync: minutesAgo(31), waiting_walks: [pass] },
        false,
        /though there is work/,
      ],
      [{ last_sync: minutesAgo(29), queued: 1 }, true, null],
      [
        {
          last_sync: minutesAgo(26),
          heartbeat: { ticked_at: null, stale: true, silent: "cron" },
        },
        false,
        /last sync was 26 min ago: the cron is silent\./,
      ],
      [{ schema: "other" }, false, /schema\.json here is not the one/],
      [
        { replica: { ...replica, schema_hash: "other" } },
        false,
        /replica does not have the schema/,
      ],
      [
        { last_full_pass: { ...pass, found: drift } },
        true,
        /3 differences, in apps, and mended/,
      ],
      [
        {
          last_full_pass: {
            ...pass,
            kind: "verify",
            repair: false,
            found: drift,
          },
        },
        false,
        /3 differences, in apps\./,
      ],
      // A fill writes everything.
      [
        { last_full_pass: { ...pass, kind: "backfill", found: drift } },
        true,
        null,
      ],
      [
        {
          last_full_pass: {
            ...pass,
            found: {
              apps: { rows: 0, differing: 0, ghosts: 0, failed: "42703" },
            },
          },
        },
        false,
        /could not read table apps \(SQLSTATE 42703\)/,
      ],
      [
        {
          epoch: "new",
          last_epoch: { reason: "nuke", begun_at: minutesAgo(1), wipe: true },
        },
        true,
        /does not follow the epoch that began 1 min ago/,
      ],
      [
        {
          epoch: "new",
          last_epoch: { reason: "nuke", begun_at: minutesAgo(40), wipe: true },
        },
        false,
        /does not follow the epoch/,
      ],
      [
        {
          last_epoch: {
            reason: "position 5 cannot be repeated: messages of it are gone",
            begun_at: minutesAgo(60),
            wipe: false,
          },
        },
        true,
        /A new epoch began 1 h ago: position 5 cannot/,
      ],
      [
        { refill: false, replica: { ...replica, walk_done: 0 } },
        true,
        /emptied and is not filled/,
      ],
    ];
  for (const [status, fine, found] of cases) {
    const made = report(status);
    assertEquals(made.fine, fine, JSON.stringify(made.warnings));
    if (found === null) assertEquals(made.warnings, []);
    else {
      assertEquals(
        made.warnings.some((warning) => found.test(warning.found)),
        true,
        `${found}: ${JSON.stringify(made.warnings)}`,
      );
    }
  }
});
