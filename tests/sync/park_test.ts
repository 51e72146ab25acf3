import { assertEquals } from "@std/assert";
import type { Refusal } from "../../lib/chain/message.ts";
import type { PlannedBatch } from "../../lib/sync/plan_claim.ts";
import { withoutLetter } from "../../lib/sync/park.ts";

const page = (table: string, ...keys: string[]) =>
  ({
    page: { table, open: keys.map((key) => ({ key: [key], skip: true })) },
  }) as unknown as PlannedBatch;

const change = (msgId: string | null, table: string, key: string): Refusal => ({
  msgId,
  table,
  key: [key],
  reason: "",
});

Deno.test("withoutLetter() leaves out a page's rows that have a dead letter, and nothing else", () => {
  const again = change(null, "apps", "1");
  const others = [
    change(null, "apps", "2"),
    change(null, "orgs", "1"),
    // A message's change has a letter of its own.
    change("7", "apps", "1"),
  ];
  const batch = page("apps", "1");
  assertEquals(withoutLetter(batch, [again, ...others]), others);
  assertEquals(withoutLetter({ page: null }, [again]), [again]);
});
