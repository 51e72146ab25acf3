import { assertEquals } from "@std/assert";
import { parseConfig } from "../lib/config/config.ts";
import { createWorker } from "../lib/worker.ts";

const SETTINGS: Record<string, string> = {
  LIBSQL_URL: "http://127.0.0.1:1",
  PGMQ_URL: "postgres://worker:password@127.0.0.1:1/postgres",
  WEBHOOK_SIGNATURE: "secret",
};

Deno.test("createWorker() answers each request with what is wrong in schema.json, and is healthy still", async () => {
  const logged: unknown[] = [];
  const worker = createWorker({
    config: () => parseConfig((name) => SETTINGS[name]),
    schema: { tables: { "": {} } },
    log: (level, event, { code }) => void logged.push([level, event, code]),
    now: () => 0,
  });
  const ask = async (path: string, method: string) => {
    const headers = { "x-webhook-signature": "secret" };
    const url = `http://worker.example.com${path}`;
    const response = await worker(new Request(url, { method, headers }));
    const { error, message } = await response.json();
    assertEquals(/schema\.json/.test(message), true, message);
    return [response.status, error];
  };
  // It idles before its first request: nothing may be rejected meanwhile.
  await new Promise((resolve) => setTimeout(resolve));
  for (const path of ["/sync", "/sync", "/verify"]) {
    assertEquals(await ask(path, "POST"), [500, "schema_invalid"]);
  }
  assertEquals(await ask("/status", "GET"), [500, "schema_invalid"]);
  const healthy = await worker(new Request("http://worker.example.com/health"));
  assertEquals([healthy.status, await healthy.text()], [200, "OK"]);
  assertEquals(logged, [
    ["error", "sync", "schema_invalid"],
    ["error", "sync", "schema_invalid"],
    ["error", "verify", "schema_invalid"],
    ["error", "status", "schema_invalid"],
  ]);
});
