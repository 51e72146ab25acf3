import { assertEquals } from "@std/assert";
import type { Refusal } from "../../lib/chain/rows.ts";
import type { PlannedBatch } from "../../lib/sync/plan_claim.ts";
import { withoutLetter } from "../../lib/sync/park.ts";

const page = (table: string, ...keys: string[]) =>
  ({
    page: { table, open: keys.map((key) => ({ key: [key], skip: true })) },
  }) as unknown as PlannedBatch;

const refusal = (table: string | null, key: string | null): Refusal => ({
  table,
  key: key === null ? null : [key],
  reason: "",
});

Deno.test("withoutLetter() leaves out a page's rows that have a dead letter, and nothing else", () => {
  const again = refusal("apps", "1");
  const others = [
    refusal("apps", "2"),
    refusal("orgs", "1"),
    refusal("apps", null),
    refusal(null, null),
  ];
  const batch = page("apps", "1");
  assertEquals(withoutLetter(batch, [again, ...others]), others);
  assertEquals(withoutLetter({ page: null }, [again]), [again]);
});
