/**
 * The page in a real browser. SCREENSHOTS=<folder> keeps what it looks like.
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { startChromium } from "../../lib/dev/chromium.ts";
import { SECRET, Servers, Stack } from "../db/support/stack.ts";

const servers = new Servers();
let browser: Browser | undefined;
Deno.test.afterAll(async () => {
  await browser?.close();
  await servers.stop();
});

const WAIT_MS = 30_000;

/** The page of a stack's worker, and what went wrong in it. */
async function open(
  stack: Stack,
  options: Parameters<Browser["newContext"]>[0] = {},
): Promise<{ page: Page; context: BrowserContext; troubles: string[] }> {
  browser ??= await startChromium();
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  const troubles: string[] = [];
  page.on("pageerror", (error) => troubles.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") troubles.push(message.text());
  });
  page.on("request", (request) => {
    const { host } = new URL(request.url());
    if (host !== "" && host !== `127.0.0.1:${stack.worker.addr.port}`) {
      troubles.push(`asks ${host}`);
    }
  });
  await page.goto(`http://127.0.0.1:${stack.worker.addr.port}/`);
  return { page, context, troubles };
}

async function enter(page: Page, secret = SECRET): Promise<void> {
  await page.getByLabel("The worker's secret").fill(secret);
  await page.keyboard.press("Enter");
}

const ORGS =
  "insert into orgs (id, created_by, name, management_email) select gen_random_uuid(), gen_random_uuid(), 'o' || i, 'e' from generate_series(1, 40) i";

/** Something to see: rows, drift that was mended, a parked change, a busy past. */
async function startBusy(): Promise<Stack> {
  const stack = await Stack.start(servers);
  const { sql } = stack;
  await sql.unsafe(ORGS);
  await stack.walk();
  await stack.client.execute("DELETE FROM orgs WHERE name < 'o13'");
  await stack.finish("/verify?repair=true");
  await stack.client.execute(
    "CREATE TRIGGER by_hand BEFORE UPDATE ON orgs WHEN NEW.name = 'refused' BEGIN SELECT RAISE(ABORT, 'by hand'); END",
  );
  await sql`update orgs set name = 'refused' where name = 'o13'`;
  await stack.drain();
  await stack.client.execute("DROP TRIGGER by_hand");
  await sql`insert into libsql_sync.minutes (slot, minute, syncs, failed, processed, lag_ms)
    select m % 180, m, 1, 0, (900 + 700 * sin(m / 9.0) + 131 * (m % 5))::int,
      (4000 + 3000 * cos(m / 7.0) + case when m % 60 between 20 and 24 then 30000 else 0 end)::int
    from generate_series(floor(extract(epoch from now()) / 60)::bigint - 178, floor(extract(epoch from now()) / 60)::bigint - 1) m
    on conflict do nothing`;
  return stack;
}

Deno.test("the page asks for the secret, keeps it in its tab alone, and shows what the worker reports", async () => {
  await using stack = await startBusy();
  await stack
    .sql`select pgmq.send('replicate_data_libsql', '{"table": "<b>perhaps</b>"}'::jsonb)`;
  await stack.drain();
  const { page, context, troubles } = await open(stack);
  assertEquals(await page.title(), "LibSQL Sync");
  // The keyboard is where it is needed.
  assertEquals(await page.evaluate("document.activeElement.id"), "secret");
  await enter(page, "another");
  await page.getByText("expects another secret").waitFor();
  // A refused request is told in the console by the browser itself.
  assertEquals(
    troubles.splice(0).filter((text) => !/status of 401/.test(text)),
    [],
  );
  await enter(page);
  await page.getByRole("status").getByText("The replica equals the source")
    .waitFor();
  assertEquals(
    await page.evaluate(
      "JSON.stringify([Object.values(sessionStorage), Object.values(localStorage), document.cookie, location.href.includes('test-')])",
    ),
    JSON.stringify([[SECRET], [], "", false]),
  );

  const row = page.getByRole("region", { name: "Tables" }).getByRole("row", {
    name: /^orgs/,
  });
  assertMatch(await row.innerText(), /^orgs\s+40\s+\d+\s+\d+\s+\d+ s ago$/);
  const drift = Number(await row.getByRole("cell").nth(2).innerText());
  assert(drift > 0);
  const letters = page.getByRole("region", { name: "Parked changes" });
  assertMatch(
    await letters.getByRole("row", { name: /orgs/ }).innerText(),
    /orgs\s+\["[0-9a-f-]{36}"\]\s+libSQL refused the row with SQLITE_CONSTRAINT/,
  );
  await letters.getByRole("row", { name: /<b>perhaps<\/b>/ }).waitFor();
  assertEquals(await page.locator("#all b").count(), 0, "no markup of theirs");
  assertMatch(
    await page.locator("#warnings").innerText(),
    /Parked changes: 2\./,
  );
  for (const name of [/^Lag over three hours/, /^Messages a minute over/]) {
    const plot = page.getByRole("img", { name });
    assert(await plot.locator("rect").count() >= 170);
  }
  assert(
    await page.getByRole("region", { name: "Last syncs" }).getByRole("row")
      .count() >= 3,
  );

  // Read again from the tab's own store, gone with "forget".
  await page.reload();
  await page.getByText("The replica equals the source").waitFor();
  await page.getByRole("button", { name: "Forget the secret" }).click();
  assertEquals(await page.evaluate("sessionStorage.length"), 0);
  assert(await page.getByLabel("The worker's secret").isVisible());
  assertEquals(troubles, []);
  await context.close();
});

Deno.test("the page's buttons sync, verify, backfill and redrive, by the keyboard too", async () => {
  await using stack = await startBusy();
  const { page, context, troubles } = await open(stack);
  await enter(page);
  const redrive = page.getByRole("button", { name: /^Redrive \d+$/ });
  await redrive.waitFor();
  assertEquals(await redrive.count(), 1);
  await redrive.click();
  await page.locator("#parked").waitFor({ state: "hidden" });
  assertEquals(await stack.deadLetters(), []);
  await stack.sql`update orgs set name = 'later'`;
  const said = page.locator("#said");
  await page.getByRole("button", { name: "Sync" }).focus();
  await page.keyboard.press("Enter");
  await said.getByText(/^1 messages, 0 remaining\.$/).waitFor();
  // What is redrawn leaves the keyboard where it was.
  assertEquals(await page.evaluate("document.activeElement.id"), "sync");

  await stack.client.execute("DELETE FROM orgs WHERE rowid % 8 = 0");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Space");
  await said.getByText(/^Every row was compared: [1-9]\d* different\.$/)
    .waitFor();
  await page.getByRole("button", { name: "Backfill" }).click();
  await said.getByText(/^Every row was compared: [1-9]\d* written\.$/)
    .waitFor();
  await stack.assertEqual();

  assertEquals(troubles, []);

  // A worker that fails is told, and the page goes on.
  await stack.sql`select libsql_sync.pause()`;
  await page.getByRole("button", { name: "Sync" }).click();
  await said.getByText("The worker is paused.").waitFor();
  await page.locator("#warnings").getByText("is paused").waitFor();
  await context.close();
});

Deno.test("the page is readable on a phone, in the dark and in the light, and names all it has", async () => {
  await using stack = await startBusy();
  const kinds = {
    light: { viewport: { width: 1100, height: 900 } },
    dark: { viewport: { width: 1100, height: 900 }, colorScheme: "dark" },
    phone: { viewport: { width: 360, height: 740 }, isMobile: true },
  } as const;
  const grounds: unknown[] = [];
  for (const [kind, options] of Object.entries(kinds)) {
    const { page, context, troubles } = await open(stack, {
      deviceScaleFactor: 1,
      ...options,
    });
    await enter(page);
    await page.getByText("The replica equals the source").waitFor();
    await page.locator("#letters button").waitFor();
    assertEquals(
      await page.evaluate(
        "document.documentElement.scrollWidth <= innerWidth",
      ),
      true,
      `${kind}: nothing is wider than the screen`,
    );
    // Contrast of text with what is behind it, as WCAG 2.1 counts it.
    const weak = await page.evaluate(`(() => {
      const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
      const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
      const behind = (part) => { for (; part; part = part.parentElement) {
        const color = numbers(getComputedStyle(part).backgroundColor); if (color[3] !== 0) return color; } return [255, 255, 255]; };
      return [...document.querySelectorAll("body *")].filter((part) => part.checkVisibility()
        && [...part.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).filter((part) => {
          const style = getComputedStyle(part);
          const [a, b] = [light(numbers(part.namespaceURI.endsWith("svg") ? style.fill : style.color)), light(behind(part))];
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5; }).map((part) => part.tagName + " " + part.textContent.slice(0, 40));
    })()`);
    assertEquals(weak, [], kind);
    // Each control and each drawing has a name; each size can be hit by a thumb.
    const bare = await page.evaluate(
      `[...document.querySelectorAll("button,input,svg,[role=region],progress")].filter((part) =>
        !(part.textContent.trim() || part.ariaLabel || part.labels?.length)
        || part.tagName === "BUTTON" && part.checkVisibility() && part.getBoundingClientRect().height < 40)
        .map((part) => part.outerHTML)`,
    );
    assertEquals(bare, [], kind);
    grounds.push(
      await page.evaluate("getComputedStyle(document.body).backgroundColor"),
    );
    const folder = Deno.env.get("SCREENSHOTS");
    if (folder) {
      await page.screenshot({ path: `${folder}/${kind}.png`, fullPage: true });
    }
    assertEquals(troubles, []);
    await context.close();
  }
  assertEquals(grounds[0], grounds[2]);
  assert(grounds[0] !== grounds[1]);
});

Deno.test("the page runs nothing that did not come with it, and cannot be framed", async () => {
  await using stack = await Stack.start(servers);
  const { page, context } = await open(stack);
  const origin = `http://127.0.0.1:${stack.worker.addr.port}`;
  const policies: string[] = [];
  for (let n = 0; n < 2; n++) {
    const response = await fetch(origin);
    const policy = response.headers.get("content-security-policy")!;
    assertEquals(response.headers.get("cache-control"), "no-store");
    const text = await response.text();
    assert(text.includes(/'nonce-([\w-]+)'/.exec(policy)![1]!));
    assert(!text.includes(SECRET));
    assertEquals(/https?:\/\/(?!www\.w3\.org\/2000\/svg)/.exec(text), null);
    policies.push(policy);
  }
  assert(policies[0] !== policies[1], "a nonce is for one answer");
  assertEquals(
    policies[0]!.replace(/nonce-[\w-]+/g, "nonce"),
    [
      "default-src 'none'",
      "script-src 'nonce'",
      "style-src 'nonce'",
      "connect-src 'self'",
      "img-src data:",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ].join("; "),
  );
  // Tried, not only said.
  assertEquals(
    await page.evaluate(`(() => {
      document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = 1'>");
      const script = document.createElement("script");
      script.textContent = "window.ran = 2";
      document.body.append(script);
      return new Promise((done) => setTimeout(() => done(window.ran ?? "nothing"), 100));
    })()`),
    "nothing",
  );
  assertEquals(
    await page.evaluate(
      `fetch("http://127.0.0.1:1/").then(() => "sent", (error) => error.name)`,
    ),
    "TypeError",
  );
  await context.close();
});
