/**
 * Tables that the tests of plan/ and replica/ share.
 *
 * @module
 */

import { parseSchema } from "../../lib/schema.ts";

/** One table with a simple key and two indexes, and one with a key of two columns. */
export const SCHEMA = parseSchema({
  tables: {
    item: {
      key: "id",
      columns: { id: "INTEGER", name: "TEXT", on_sale: "BOOLEAN" },
      indexes: ["name", ["on_sale", "name"]],
    },
    part: {
      key: ["item", "code"],
      columns: { item: "INTEGER", code: "TEXT", note: "TEXT" },
      indexes: [],
    },
  },
});

/** Its tables by name. */
export const [ITEM, PART] = SCHEMA.tables as [
  typeof SCHEMA.tables[0],
  typeof SCHEMA.tables[0],
];
