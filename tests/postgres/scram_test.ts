import { assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { clientFinal, clientFirst } from "../../lib/postgres/scram.ts";

const SALT = "W22ZaJ0SNY7soEsUEjb6gQ==";
const final = (
  { both = "abcXYZ", iterations = "4096", password = "pencil" } = {},
) =>
  clientFinal(`r=${both},s=${SALT},i=${iterations}`, {
    nonce: "abc",
    password,
  });

Deno.test("clientFinal() proves the password: another one, salt or count makes another proof", async () => {
  const one = await final();
  assertEquals(one, await final());
  for (
    const other of [{ password: "Pencil" }, { both: "abcXYz" }, {
      iterations: "4097",
    }]
  ) {
    const two = await final(other);
    assertNotEquals(one.message, two.message);
    assertNotEquals(one.proof, two.proof);
  }
});

Deno.test("clientFinal() never sends the password", async () => {
  assertEquals(clientFirst("abc").includes("pencil"), false);
  assertEquals((await final()).message.includes("pencil"), false);
});

Deno.test("clientFinal() refuses a server that repeats our nonce, takes another, or asks for endless work", async () => {
  for (
    const wrong of [
      { both: "abc" },
      { both: "xyzabc" },
      { iterations: "0" },
      { iterations: "999999999" },
    ]
  ) await assertRejects(() => final(wrong), RangeError);
});
