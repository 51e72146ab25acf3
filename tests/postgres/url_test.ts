import { assertEquals, assertThrows } from "@std/assert";
import { parsePostgresUrl } from "../../lib/postgres/url.ts";

Deno.test("parsePostgresUrl() is never weaker than sslmode asks for", () => {
  const cases: [query: string, hasCa: boolean, tls: string, verify: boolean][] =
    [
      ["", false, "prefer", false],
      ["?sslmode=require", false, "require", false],
      ["?sslmode=verify-full", false, "require", true],
      ["?sslmode=verify-ca", false, "require", true],
      ["?sslmode=require", true, "require", true],
      ["?sslnegotiation=direct", false, "require", true],
    ];
  for (const [query, hasCa, tls, verify] of cases) {
    const address = parsePostgresUrl(`postgres://u:p@h/d${query}`, { hasCa });
    assertEquals([address.tls, address.verify], [tls, verify], query);
  }
});

Deno.test("parsePostgresUrl() reads names and passwords with every character", () => {
  const address = parsePostgresUrl(
    "postgres://u%40x:p%2F%3A%23%25@[::1]:6543/my%20db",
  );
  assertEquals(
    [
      address.user,
      address.password,
      address.host,
      address.port,
      address.database,
    ],
    ["u@x", "p/:#%", "::1", 6543, "my db"],
  );
});

Deno.test("parsePostgresUrl() refuses what it cannot use, and shows no part of it", () => {
  for (
    const url of [
      "postgres://u:secret@a,b/d",
      "postgres://u:secret@h/d?sslmode=secret",
      "postgres://u:secret@h/d?sslnegotiation=secret",
      "postgres://u:secret@h/d?target_session_attrs=standby",
    ]
  ) {
    const error = assertThrows(() => parsePostgresUrl(url), RangeError);
    assertEquals(error.message.includes("secret"), false, error.message);
  }
});
