import { assertEquals } from "@std/assert";
import { sourceError } from "../../lib/source/source_error.ts";

Deno.test("sourceError() says of each SQLSTATE whether a retry helps, and shows no word of the server", () => {
  const cases: [state: string, code: string, retry: boolean][] = [
    ["57P01", "source_unreachable", true],
    ["08006", "source_unreachable", true],
    ["42883", "source_not_installed", false],
    ["42501", "source_not_installed", false],
    ["28P01", "config_invalid", false],
    ["22003", "source_failed", false],
  ];
  for (const [state, code, retry] of cases) {
    const error = sourceError("claim", { state, text: "secret", cause: null });
    assertEquals([error.code, error.retry], [code, retry], state);
    assertEquals(error.message.includes("secret"), false, state);
  }
});
