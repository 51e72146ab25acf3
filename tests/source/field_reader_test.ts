import { assertEquals, assertThrows } from "@std/assert";
import { SyncError } from "../../lib/errors.ts";
import { readFields } from "../../lib/source/field_reader.ts";

const refuses = (read: () => unknown, expected: string) => {
  const error = assertThrows(read, SyncError, expected);
  assertEquals(error.code, "source_failed");
};

Deno.test("readFields() returns a field of the type that is asked for, and refuses another", () => {
  const fields = readFields({
    text: "a",
    number: 5,
    flag: false,
    none: null,
    list: [1],
    texts: ["a"],
    rows: [["a", null]],
  });
  assertEquals(fields.text("text"), "a");
  assertEquals(fields.number("number"), 5);
  assertEquals(fields.flag("flag"), false);
  assertEquals([fields.textOrNull("none"), fields.textOrNull("missing")], [
    null,
    null,
  ]);
  assertEquals(fields.rows("rows", 2), [["a", null]]);
  refuses(() => fields.text("number"), 'expected a text "number"');
  refuses(() => fields.number("text"), 'expected a whole number "text"');
  refuses(() => readFields({ n: 2 ** 53 }).number("n"), "a whole number");
  refuses(() => fields.flag("none"), 'expected true or false in "none"');
  refuses(() => fields.texts("rows"), "a list of texts");
  refuses(() => fields.rows("rows", 3), "rows of 3 cells");
  refuses(() => fields.oneOf("text", ["b", "c"]), "one of b, c");
});

Deno.test("readFields() shows no value of what it refuses", () => {
  const fields = readFields({ n: "secret", list: "secret" });
  for (const read of [() => fields.number("n"), () => fields.list("list")]) {
    const error = assertThrows(read, SyncError);
    assertEquals(error.message.includes("secret"), false);
  }
});

Deno.test("readFields() refuses an answer that is not an object", () => {
  for (const answer of [null, undefined, "text", 5]) {
    refuses(() => readFields(answer), "an object");
  }
});
