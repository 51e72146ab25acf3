import { assertEquals } from "@std/assert";
import { formatStatus } from "../../lib/cli/format_status.ts";
import type { SourceStatus } from "../../lib/source/report.ts";
import { reportStatus } from "../../lib/status/status.ts";
import {
  FINE,
  HASH,
  minutesAgo,
  NOW,
  PASS,
  REPLICA,
} from "../status/fine_status.ts";

const report = (status: Partial<SourceStatus>) =>
  reportStatus({ ...FINE, ...status }, { now: NOW, here: HASH });

Deno.test("formatStatus() shows a person everything in few lines", () => {
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
      ...REPLICA,
      drained: 0,
      walk_done: 0,
      walk_at: '{"table": "apps", "half": "back"}',
    },
    walk: { ...PASS, kind: "backfill", ended_at: null },
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
    "! Parked changes: 2.",
    "  -> deno task dlq list",
  ]);
});
