import { assertEquals } from "@std/assert";
import { createRings, ringOf } from "../.ci/rings.ts";

const FILES: Record<string, string> = {
  "lib/pure.ts": "/** Ring 0. Pure. */",
  "lib/adapter.ts": "/**\n * Ring 1. An adapter.\n */",
  "lib/flow.ts": "/** Ring 2. A flow. */",
  "lib/edge.ts": "/** Ring 3. An edge. */",
  "lib/bare.ts": "export {};",
  "lib/cli/command.ts": "/** Ring 3. A command. */",
  "lib/above/one.ts": "/** Ring 0. One above. */",
  "lib/room/one.ts": "/** Ring 0. One in the room. */",
  "lib/room/two.ts": "/** Ring 0. Two in the room. */",
  "lib/below/one.ts": "/** Ring 0. One below. */",
};
const plugin = createRings({
  root: new URL("file:///house/"),
  read: (file) => {
    const text = FILES[file.pathname.replace("/house/", "")];
    if (text === undefined) throw new Deno.errors.NotFound();
    return text;
  },
  folders: [
    ...["above", "it", "room", "below"],
    ...["bare", "gone", "edge", "flow", "adapter", "pure"],
  ],
});
/** What the rule says of one line in a file of a ring. */
const lint = (ring: number | string, line: string, path = "lib/it.ts") => {
  const first = typeof ring === "number" ? `/** Ring ${ring}. It. */` : ring;
  return Deno.lint.runPlugin(plugin, `/house/${path}`, `${first}\n${line}\n`)
    .map(({ message }) => message);
};

const ALLOWED: readonly [ring: number, line: string][] = [
  [0, `import { a } from "./pure.ts";`],
  [0, `export const at = (ms: number) => new Date(ms).toISOString();`],
  [
    0,
    `const o = { fetch: 1, console: 2 }; export const p = o.fetch + o.console;`,
  ],
  [
    0,
    `export interface Deno { Deno: string; fetch(): void }`.replace(
      "interface Deno",
      "interface Other",
    ),
  ],
  [0, `export const h = crypto.subtle;`],
  [0, `export * from "./pure.ts";`],
  [1, `import { a } from "./pure.ts";`],
  [1, `import { a } from "@libsql/client/http";`],
  [1, `export const now = Date.now();`],
  [2, `import { a } from "./pure.ts";`],
  [2, `import type { A } from "./adapter.ts";`],
  [2, `import { type A, type B } from "./adapter.ts";`],
  [2, `export { a } from "./flow.ts";`],
  [
    3,
    `import { a } from "./adapter.ts"; import b from "postgres"; import c from "../schema.json" with { type: "json" };`,
  ],
  [3, `export const d = Deno.args;`],
];

const REFUSED: readonly [ring: number, line: string, message: string][] = [
  [
    0,
    `import { a } from "./adapter.ts";`,
    "ring 0 imports ring 0 only: './adapter.ts' is ring 1",
  ],
  [
    0,
    `import type { A } from "./adapter.ts";`,
    "ring 0 imports ring 0 only: './adapter.ts' is ring 1",
  ],
  [
    0,
    `export type { A } from "./flow.ts";`,
    "ring 0 imports ring 0 only: './flow.ts' is ring 2",
  ],
  [
    0,
    `export * from "./edge.ts";`,
    "ring 0 imports ring 0 only: './edge.ts' is ring 3",
  ],
  [
    0,
    `export type A = import("./flow.ts").A;`,
    "ring 0 imports ring 0 only: './flow.ts' is ring 2",
  ],
  [
    0,
    `import { a } from "./bare.ts";`,
    "ring 0 imports ring 0 only: './bare.ts' is no ring",
  ],
  [
    0,
    `import { a } from "./gone.ts";`,
    "ring 0 imports ring 0 only: './gone.ts' is no ring",
  ],
  [0, `import { a } from "postgres";`, "ring 0 imports no package: 'postgres'"],
  [
    0,
    `import type { A } from "node:tls";`,
    "ring 0 imports no package: 'node:tls'",
  ],
  [
    0,
    `const a = await import("postgres");`,
    "ring 0 imports no package: 'postgres'",
  ],
  [
    0,
    `import s from "../schema.json" with { type: "json" };`,
    "ring 0 imports nothing outside lib/: '../schema.json'",
  ],
  [
    0,
    `export const a = Deno.env;`,
    "ring 0 does not use Deno: have it handed in",
  ],
  [
    0,
    `export type A = Deno.Conn;`,
    "ring 0 does not use Deno: have it handed in",
  ],
  [
    0,
    `export const o = { fetch };`,
    "ring 0 does not use fetch: have it handed in",
  ],
  [0, `console.log(1);`, "ring 0 does not use console: have it handed in"],
  [
    0,
    `export const t = Date.now();`,
    "ring 0 does not use Date.now: have it handed in",
  ],
  [
    0,
    `export const t = new Date();`,
    "ring 0 does not use the time of day: have it handed in",
  ],
  [
    0,
    `export const t = Date();`,
    "ring 0 does not use the time of day: have it handed in",
  ],
  [
    0,
    `export const r = Math.random();`,
    "ring 0 does not use Math.random: have it handed in",
  ],
  [
    0,
    `export const r = crypto.randomUUID();`,
    "ring 0 does not use crypto.randomUUID: have it handed in",
  ],
  [
    0,
    `setTimeout(() => {}, 1);`,
    "ring 0 does not use setTimeout: have it handed in",
  ],
  [
    0,
    `export const g = globalThis["Deno"];`,
    "ring 0 does not use globalThis: have it handed in",
  ],
  [
    1,
    `import { a } from "./adapter.ts";`,
    "ring 1 imports ring 0 only: './adapter.ts' is ring 1",
  ],
  [
    1,
    `import type { A } from "./flow.ts";`,
    "ring 1 imports ring 0 only: './flow.ts' is ring 2",
  ],
  [
    2,
    `import { a } from "./adapter.ts";`,
    "ring 2 imports rings 0 and 2, and types of ring 1: './adapter.ts' is ring 1",
  ],
  [
    2,
    `import { type A, b } from "./adapter.ts";`,
    "ring 2 imports rings 0 and 2, and types of ring 1: './adapter.ts' is ring 1",
  ],
  [
    2,
    `import "./adapter.ts";`,
    "ring 2 imports rings 0 and 2, and types of ring 1: './adapter.ts' is ring 1",
  ],
  [
    2,
    `import type { A } from "./edge.ts";`,
    "ring 2 imports rings 0 and 2, and types of ring 1: './edge.ts' is ring 3",
  ],
  [
    2,
    `import type { A } from "postgres";`,
    "ring 2 imports no package: 'postgres'",
  ],
  [
    2,
    `export const a = Deno.env;`,
    "ring 2 does not use Deno: have it handed in",
  ],
  [
    2,
    `export const a = (r: Response) => r;`,
    "ring 2 does not use Response: have it handed in",
  ],
  [
    3,
    `import { a } from "./cli/command.ts";`,
    "ring 3 ships, and imports nothing that does not: './cli/command.ts'",
  ],
];

Deno.test("rings/keep-apart says nothing when a ring keeps to its own", () => {
  for (const [ring, line] of ALLOWED) {
    assertEquals(lint(ring, line), [], `ring ${ring}: ${line}`);
  }
});

Deno.test("rings/keep-apart names the ring and the import or the global when a ring does not", () => {
  for (const [ring, line, message] of REFUSED) {
    assertEquals(lint(ring, line), [message], `ring ${ring}: ${line}`);
  }
});

Deno.test("rings/keep-apart asks for a ring when a file of lib/ has none, and leaves other folders alone", () => {
  const asks = [
    "its module comment must begin with its ring: 'Ring 0.' to 'Ring 3.'",
  ];
  for (
    const first of [
      "",
      "/** The ring. */",
      "// Ring 0. It.",
      "/** Ring 4. It. */",
      "export {};\n/** Ring 0. It. */",
    ]
  ) {
    assertEquals(lint(first, "export const a = 1;"), asks);
    assertEquals(
      lint(first, "export const a = Deno.args;", "lib/dev/it.ts"),
      [],
    );
    assertEquals(lint(first, "export const a = Deno.args;", "tests/it.ts"), []);
    assertEquals(lint(first, "export const a = Deno.args;", "main.ts"), []);
  }
});

Deno.test("rings/keep-apart says nothing when a folder imports itself or what stands below it", () => {
  for (const line of [`import "./two.ts";`, `import "../below/one.ts";`]) {
    assertEquals(lint(0, line, "lib/room/it.ts"), [], line);
  }
});

Deno.test("rings/keep-apart names both folders when an import points upward, in every ring and for types too", () => {
  for (const ring of [0, 3]) {
    assertEquals(
      lint(ring, `import type { A } from "../above/one.ts";`, "lib/room/it.ts"),
      [
        `ring ${ring} stands in room, which imports nothing of above: '../above/one.ts' points upward`,
      ],
    );
  }
});

Deno.test("rings/keep-apart asks for a place when a folder of lib/ is not in the list", () => {
  assertEquals(lint(0, "export const a = 1;", "lib/cellar/it.ts"), [
    "lib/cellar has no place in the list of folders in .ci/rings.ts",
  ]);
});

Deno.test("ringOf() finds the ring when the first comment begins with it", () => {
  assertEquals(ringOf("/**\n * Ring 2. The verbs.\n */"), 2);
  assertEquals(ringOf("/** Ring 0. It. */"), 0);
  assertEquals(ringOf("/** Not ring 0. */"), undefined);
});
