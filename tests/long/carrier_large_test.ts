import { assertEquals, assertRejects } from "@std/assert";
import { SyncError } from "../../lib/errors.ts";
import { openWays } from "../db/support/carrier.ts";
import { Servers } from "../db/support/stack.ts";
import { TRANSPORTS } from "../db/support/transport.ts";

const servers = new Servers({ tls: true });
Deno.test.afterAll(() => servers.stop());

const withWay = openWays(servers);

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: call() takes large requests and answers, and no answer without end`, () =>
    withWay(transport, async ({ carrier }) => {
      const large = "x é".repeat(1_500_000);
      assertEquals(await carrier.call("echo", [large]), [large]);
      const error = await assertRejects(
        () => carrier.call("many", 105 * 1_048_576),
        SyncError,
      );
      assertEquals(error.code, "source_unreachable");
      assertEquals(await carrier.call("echo", 1), 1);
    }));
}
