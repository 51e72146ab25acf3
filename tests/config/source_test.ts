import { assertEquals, assertStringIncludes } from "@std/assert";
import { parsePgmq } from "../../lib/config/source.ts";

/** Starts as every certificate does: a sequence, with a length of two bytes. */
const DER = btoa(
  `\x30\x82\x01\x00${
    Array.from({ length: 256 }, (_, at) => String.fromCharCode(at)).join("")
  }`,
);
const PEM = `-----BEGIN CERTIFICATE-----\n${
  DER.match(/.{1,64}/g)!.join("\n")
}\n-----END CERTIFICATE-----\n`;

const base64Url = (value: unknown) =>
  btoa(JSON.stringify(value)).replace(/\+/g, "-").replace(/\//g, "_")
    .replace(/=/g, "");
const token = (claims: unknown) =>
  `${base64Url({ alg: "HS256" })}.${base64Url(claims)}.c2lnbmF0dXJl`;
const TOKEN = token({ role: "libsql_sync_worker", text: "~~~???" });

function parse(settings: Record<string, string>) {
  const problems: string[] = [];
  const config = parsePgmq(
    (name) => settings[name] ?? "",
    (problem) => problems.push(problem),
  );
  return { config, problems };
}

Deno.test("parsePgmq() makes PEM of PGMQ_CA however a dashboard has spelled it", () => {
  const PGMQ_URL = "postgres://h/d";
  const forms: [given: string, certificates: number][] = [
    ["", 0],
    [PEM, 1],
    [PEM.replaceAll("\n", "\r\n"), 1],
    [PEM.replaceAll("\n", " "), 1],
    [PEM.replaceAll("\n", "\\n"), 1],
    [PEM.replaceAll("\n", ""), 1],
    [DER, 1],
    [btoa(PEM), 1],
    [`  ${PEM}${PEM}`, 2],
    [`Subject: a CA\n${PEM}`.replace(/^.*\n/, ""), 1],
  ];
  for (const [PGMQ_CA, certificates] of forms) {
    const { config, problems } = parse({ PGMQ_URL, PGMQ_CA });
    assertEquals(problems, []);
    assertEquals(config.pgmqCa, PEM.repeat(certificates));
  }
  for (
    const PGMQ_CA of [
      "secret",
      btoa("secret"),
      PEM.replace(/MII/, "AAA").replace(/MI/, "AA"),
      "-----BEGIN",
    ]
  ) {
    const { problems } = parse({ PGMQ_URL, PGMQ_CA });
    assertEquals(problems.length, 1, PGMQ_CA);
    assertStringIncludes(problems[0]!, "PGMQ_CA must be a certificate as PEM");
  }
});

Deno.test("parsePgmq() takes PostgREST's address with a token of the worker's role", () => {
  const forms: Record<string, string> = {
    "https://p.supabase.co/rest/v1": "https://p.supabase.co/rest/v1",
    " HTTPS://P.supabase.co/rest/v1/ ": "https://p.supabase.co/rest/v1",
    "http://127.0.0.1:3000": "http://127.0.0.1:3000",
  };
  for (const [PGMQ_URL, pgmqUrl] of Object.entries(forms)) {
    for (const PGMQ_API_KEY of ["", "sb_publishable_x"]) {
      assertEquals(parse({ PGMQ_URL, PGMQ_API_KEY, PGMQ_TOKEN: TOKEN }), {
        config: {
          pgmqUrl,
          pgmqApiKey: PGMQ_API_KEY,
          pgmqToken: TOKEN,
          pgmqCa: "",
        },
        problems: [],
      });
    }
  }
});

Deno.test("parsePgmq() never takes the service key, and says what else a token is", () => {
  const PGMQ_URL = "https://p.supabase.co/rest/v1";
  const cases: [settings: Record<string, string>, words: string][] = [
    [{ PGMQ_TOKEN: token({ role: "service_role" }) }, "found service_role"],
    [{}, "found nothing"],
    [{ PGMQ_TOKEN: "sb_secret_hunter2" }, "17 characters of something else"],
    [{ PGMQ_TOKEN: token({ sub: "hunter2" }) }, "of something else"],
    [{ PGMQ_TOKEN: token("hunter2") }, "of something else"],
    [{ PGMQ_TOKEN: `Bearer ${TOKEN}` }, "of something else"],
    [
      { PGMQ_TOKEN: TOKEN, PGMQ_API_KEY: "sb_secret_hunter2" },
      "a secret key is never needed",
    ],
    [{ PGMQ_TOKEN: TOKEN, PGMQ_API_KEY: "hun\nter2" }, "PGMQ_API_KEY"],
  ];
  for (const [settings, words] of cases) {
    const { problems } = parse({ PGMQ_URL, ...settings });
    assertEquals(problems.length, 1, words);
    assertStringIncludes(problems[0]!, words);
    assertEquals(problems[0]!.includes("hunter2"), false);
  }
});

Deno.test("parsePgmq() says what is wrong with PostgREST's address", () => {
  for (
    const [PGMQ_URL, words] of [
      ["https://hunter2.supabase.co", "without a path"],
      ["https://u:hunter2@h.example.com/rest/v1", "a user, a password"],
      ["https://h.example.com/rest/v1?apikey=hunter2", "a query"],
      ["https://hunter2:x/rest", "are not a URL"],
    ] as const
  ) {
    const { problems } = parse({ PGMQ_URL, PGMQ_TOKEN: TOKEN });
    assertEquals(problems.length, 1, words);
    assertStringIncludes(problems[0]!, words);
    assertEquals(problems[0]!.includes("hunter2"), false);
  }
});

Deno.test("parsePgmq() reads each setting, whichever are used, so that their names are known", () => {
  for (const PGMQ_URL of ["", "postgres://h/d", "https://h/rest/v1"]) {
    const names = new Set<string>();
    parsePgmq((name) => {
      names.add(name);
      return name === "PGMQ_URL" ? PGMQ_URL : "";
    }, () => {});
    assertEquals(
      [...names].sort(),
      ["PGMQ_API_KEY", "PGMQ_CA", "PGMQ_TOKEN", "PGMQ_URL"],
    );
  }
});
