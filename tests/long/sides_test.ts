import { assert, assertEquals } from "@std/assert";
import { startChromium } from "../../lib/dev/chromium.ts";
import { serveSides } from "../../lib/dev/sides.ts";
import { insertItems, startChain } from "../db/support/chain.ts";
import { Servers } from "../db/support/stack.ts";

const servers = new Servers();
Deno.test.afterAll(() => servers.stop());

Deno.test("serveSides() shows a change at the source at once, and in the replica when it has arrived", async () => {
  await using stack = await startChain(servers);
  const sides = serveSides({
    pgUrl: stack.server.url({ database: stack.database }),
    libsqlUrl: stack.sqld.url,
    schema: stack.schema,
  });
  const browser = await startChromium();
  try {
    await insertItems(stack, 1, 2);
    await stack.sync();
    await stack.sql`update item set name = 'later' where id = 1`;
    await stack.sql`delete from item where id = 2`;
    assertEquals(
      (await sides.look()).map(({ key, source, replica, isEqual }) => [
        key,
        source,
        replica,
        isEqual,
      ]),
      [
        ["2", null, ["name item 2", "size 2"], false],
        ["1", ["name later", "size 1"], ["name item 1", "size 1"], false],
      ],
    );
    const page = await browser.newPage();
    page.setDefaultTimeout(30_000);
    await page.goto(sides.url);
    await page.getByText("2 on their way.").waitFor();
    await stack.sync();
    await page.getByText("The newest changes are in the replica.").waitFor();
    assert((await sides.look()).every(({ isEqual }) => isEqual));
    assertEquals(await page.locator("tr.late").count(), 0);
    assertEquals(
      await page.getByRole("row", { name: /item 1/ }).getByText("later")
        .count(),
      2,
    );
  } finally {
    await browser.close();
    await sides.stop();
  }
});
