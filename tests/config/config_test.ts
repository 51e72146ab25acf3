import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import fc from "fast-check";
import { parseConfig } from "../../lib/config/config.ts";
import { SyncError } from "../../lib/errors.ts";

const SEED = 20251031;
type Settings = Record<string, string>;

const GOOD: Settings = {
  LIBSQL_URL: "libsql://replica.example.com",
  LIBSQL_AUTH_TOKEN: "token.of-replica",
  PGMQ_URL:
    "postgres://worker:p%40ss@source.example.com:5432/postgres?sslmode=require",
  WEBHOOK_SIGNATURE: "a secret",
};
const LINKED: Settings = {
  BUNNY_DATABASE_URL: "libsql://linked.example.com",
  BUNNY_DATABASE_AUTH_TOKEN: "token.of-linked",
};

const parse = (settings: Settings) => parseConfig((name) => settings[name]);
const without = (settings: Settings, ...names: string[]) =>
  Object.fromEntries(
    Object.entries(settings).filter(([name]) => !names.includes(name)),
  );
const refuse = (settings: Settings) => {
  const error = assertThrows(() => parse(settings), SyncError);
  assertEquals(error.code, "config_invalid");
  return error.message;
};

Deno.test("parseConfig() returns every setting when all are well", () => {
  assertEquals(parse({ ...GOOD, PORT: "8787" }), {
    libsqlUrl: "https://replica.example.com",
    libsqlAuthToken: "token.of-replica",
    libsqlMaxMb: 1024,
    pgmqUrl:
      "postgres://worker:p%40ss@source.example.com:5432/postgres?sslmode=require",
    pgmqApiKey: "",
    pgmqToken: "",
    pgmqCa: "",
    webhookSecrets: ["a secret"],
    nukeSecrets: null,
    alertWebhookUrl: "",
    port: 8787,
  });
});

Deno.test("parseConfig() parts two secrets by a comma, and leaves a single one whole", () => {
  const old = "old-secret-of-long";
  const fresh = "new-secret-of-long";
  const cases: [text: string, secrets: string[]][] = [
    ["s", ["s"]],
    ["correct horse battery staple", ["correct horse battery staple"]],
    // What a generator of passwords makes.
    ["k,9", ["k,9"]],
    ["x,aB3$kd8-Qp2!mm0zR7^t", ["x,aB3$kd8-Qp2!mm0zR7^t"]],
    ["a,b,c,d", ["a,b,c,d"]],
    [`${old},`, [`${old},`]],
    [`${old}, ${fresh}`, [`${old}, ${fresh}`, old, fresh]],
    // This may as well be a single one: it is good for both.
    [`${old},${fresh}`, [`${old},${fresh}`, old, fresh]],
  ];
  for (const [text, secrets] of cases) {
    const config = parse({
      ...GOOD,
      WEBHOOK_SIGNATURE: text,
      NUKE_SIGNATURE: text,
    });
    assertEquals([config.webhookSecrets, config.nukeSecrets], [
      secrets,
      secrets,
    ]);
  }
  assertEquals(parse({ ...GOOD, NUKE_SIGNATURE: "" }).nukeSecrets, null);
});

Deno.test("parseConfig() makes one form of LIBSQL_URL when it is spelled in several", () => {
  const forms: Settings = {
    "libsql://replica.example.com": "https://replica.example.com",
    " LIBSQL://Replica.example.com/ \n": "https://replica.example.com",
    "https://replica.example.com:443/": "https://replica.example.com",
    "https://replica.example.com:8443//": "https://replica.example.com:8443",
    "http://127.0.0.1:8080": "http://127.0.0.1:8080",
    "http://[::1]:8080/": "http://[::1]:8080",
  };
  for (const [given, expected] of Object.entries(forms)) {
    assertEquals(parse({ ...GOOD, LIBSQL_URL: given }).libsqlUrl, expected);
  }
});

Deno.test("parseConfig() takes the linked pair when LIBSQL_URL is not set", () => {
  for (const LIBSQL_URL of [undefined, "", " "]) {
    const settings = {
      ...GOOD,
      ...LINKED,
      ...(LIBSQL_URL === undefined ? {} : { LIBSQL_URL }),
    };
    if (LIBSQL_URL === undefined) {
      delete (settings as Partial<Settings>).LIBSQL_URL;
    }
    const config = parse(settings);
    assertEquals(config.libsqlUrl, "https://linked.example.com");
    assertEquals(config.libsqlAuthToken, "token.of-linked");
  }
});

Deno.test("parseConfig() takes its own pair when both are set", () => {
  const config = parse({ ...GOOD, ...LINKED });
  assertEquals(config.libsqlUrl, "https://replica.example.com");
  assertEquals(config.libsqlAuthToken, "token.of-replica");
});

Deno.test("parseConfig() sends no token to another database when the token of a pair is missing", () => {
  const own = refuse({ ...without(GOOD, "LIBSQL_AUTH_TOKEN"), ...LINKED });
  assertMatch(
    own,
    /^Cannot use the settings: LIBSQL_AUTH_TOKEN must be [^.]*\.$/,
  );
  const linked = refuse({
    ...without(GOOD, "LIBSQL_URL"),
    BUNNY_DATABASE_URL: LINKED.BUNNY_DATABASE_URL!,
  });
  assertMatch(
    linked,
    /^Cannot use the settings: BUNNY_DATABASE_AUTH_TOKEN must be [^.]*\.$/,
  );
  const local = parse({
    ...without(GOOD, "LIBSQL_AUTH_TOKEN"),
    ...LINKED,
    LIBSQL_URL: "http://127.0.0.1:8080",
  });
  assertEquals(local.libsqlAuthToken, "");
});

Deno.test("parseConfig() takes the linked token when both URLs name one database", () => {
  const settings = {
    ...without(GOOD, "LIBSQL_AUTH_TOKEN"),
    ...LINKED,
    LIBSQL_URL: "https://linked.example.com/",
  };
  assertEquals(parse(settings).libsqlAuthToken, "token.of-linked");
});

Deno.test("parseConfig() asks for no token when the address is http://", () => {
  const settings = {
    ...without(GOOD, "LIBSQL_AUTH_TOKEN"),
    LIBSQL_URL: "http://127.0.0.1:8080",
  };
  assertEquals(parse(settings).libsqlAuthToken, "");
  assertEquals(
    parse({ ...settings, LIBSQL_AUTH_TOKEN: "local" }).libsqlAuthToken,
    "local",
  );
});

Deno.test("parseConfig() allows a replica of 1024 MB when LIBSQL_MAX_MB is not set", () => {
  for (
    const [text, mb] of [["", 1024], [" 5 ", 5], ["9999999", 9999999]] as const
  ) {
    assertEquals(parse({ ...GOOD, LIBSQL_MAX_MB: text }).libsqlMaxMb, mb);
  }
  assertEquals(parse(GOOD).libsqlMaxMb, 1024);
});

Deno.test("parseConfig() listens on 8000 when PORT is not set, and on any port there is", () => {
  for (
    const [PORT, port] of [["", 8000], ["0", 0], ["65535", 65535], [
      " 08080 ",
      8080,
    ]] as const
  ) {
    assertEquals(parse({ ...GOOD, PORT }).port, port);
  }
});

Deno.test("parseConfig() reports all problems in one message when nothing is set", () => {
  const message = refuse({});
  for (
    const name of [
      "LIBSQL_URL",
      "LIBSQL_AUTH_TOKEN",
      "PGMQ_URL",
      "WEBHOOK_SIGNATURE",
    ]
  ) {
    assertEquals(message.split(`${name} must be`).length, 2, name);
  }
  assertEquals(message.match(/found nothing/g)?.length, 4);
});

const REFUSED: readonly [name: string, value: string, found: string][] = [
  ["LIBSQL_URL", "replica.example.com", "19 characters without a scheme"],
  ["LIBSQL_URL", "wss://replica.example.com", "found wss://"],
  ["LIBSQL_URL", "postgres://u:hunter2@h/d", "found postgres://"],
  ["LIBSQL_URL", "hunter2://x", "found another scheme"],
  [
    "LIBSQL_URL",
    "https://",
    "found 8 characters that are not a URL",
  ],
  [
    "LIBSQL_URL",
    "libsql://u:hunter2@replica.example.com",
    "found a user, a password",
  ],
  [
    "LIBSQL_URL",
    "libsql://replica.example.com?authToken=hunter2",
    "found a user, a password, a query",
  ],
  [
    "LIBSQL_URL",
    "libsql://replica.example.com#hunter2",
    "found a user, a password, a query or a fragment",
  ],
  ["LIBSQL_URL", "https://replica.example.com/hunter2", "found a path too"],
  [
    "LIBSQL_AUTH_TOKEN",
    "hunter2\n",
    "found 8 characters, not all of them such",
  ],
  [
    "LIBSQL_AUTH_TOKEN",
    "Bearer hunter2",
    "found 14 characters, not all of them such",
  ],
  ["PGMQ_URL", "mysql://hunter2.example.com", "found mysql://"],
  ["PGMQ_URL", "postgres://h/d?sslmode=hunter2", "an unknown sslmode"],
  ["PGMQ_URL", "postgres://h/d?sslnegotiation=hunter2", "sslnegotiation"],
  [
    "PGMQ_URL",
    "postgres://h/d?target_session_attrs=hunter2",
    "is no primary's",
  ],
  ["PGMQ_URL", "postgres://hunter2,other/d", "more than one host"],
  ["PGMQ_CA", "hunter2", "found 7 characters of something else"],
  ["PGMQ_URL", "hunter2", "found 7 characters without a scheme"],
  [
    "PGMQ_URL",
    "postgres://u:hunter2#x@h/d",
    "that are not a URL; in the user and the password, write # / ? @ : and %",
  ],
  ["PGMQ_URL", "postgres://u:hunter2%@h/d", "found a stray %"],
  ["PGMQ_URL", "postgres:///hunter2?host=/tmp", "found no host"],
  [
    "WEBHOOK_SIGNATURE",
    " hunter2",
    "found 8 characters with space around them",
  ],
  [
    "WEBHOOK_SIGNATURE",
    "hunter2\n",
    "found 8 characters with space around them",
  ],
  [
    "WEBHOOK_SIGNATURE",
    "hunter2\u00e9",
    "found 8 characters, not all of them such",
  ],
  [
    "WEBHOOK_SIGNATURE",
    "hun\nter2",
    "found 8 characters, not all of them such",
  ],
  [
    "WEBHOOK_SIGNATURE",
    "hunter2, hunter2-hunter2-hunter2",
    "each of 16 characters or more: found 2, of 7 and 23 characters",
  ],
  [
    "WEBHOOK_SIGNATURE",
    "hunter2-hunter2-hunter2, ",
    "found 25 characters with space around them",
  ],
  [
    "WEBHOOK_SIGNATURE",
    "hunter2-hunter2-, hunter2-hunter2-, hunter2-hunter2-",
    "found 3, of 16 and 16 and 16 characters",
  ],
  ["ALERT_WEBHOOK_URL", "hooks.example.com/secret", "24 characters without a"],
  ["ALERT_WEBHOOK_URL", "ftp://hooks.example.com", "found another scheme"],
  ["ALERT_WEBHOOK_URL", "https://u:secret@hooks.example.com", "without a user"],
  ["NUKE_SIGNATURE", " ", "found 1 character with space around them"],
  ["NUKE_SIGNATURE", "hunter2, hunter2", "found 2, of 7 and 7 characters"],
  ["LIBSQL_MAX_MB", "0", "found 1 character;"],
  ["LIBSQL_MAX_MB", "-1", "found 2 characters"],
  ["LIBSQL_MAX_MB", "1.5", "found 3 characters"],
  ["LIBSQL_MAX_MB", "10000000", "found 8 characters"],
  ["LIBSQL_MAX_MB", "hunter2", "found 7 characters"],
  ["PORT", "65536", "found 5 characters"],
  ["PORT", "-1", "found 2 characters"],
  ["PORT", "80.5", "found 4 characters"],
  ["PORT", "hunter2", "found 7 characters"],
];

for (const [name, value, found] of REFUSED) {
  Deno.test(`parseConfig() names the kind and never the value when ${name} is ${JSON.stringify(value)}`, () => {
    const message = refuse({ ...GOOD, [name]: value });
    assert(
      message.startsWith(`Cannot use the settings: ${name} must be `),
      message,
    );
    assertStringIncludes(message, found);
    assertEquals(message.includes("hunter2"), false, message);
    assertEquals(message.match(/ must be /g)?.length, 1, message);
  });
}

Deno.test("parseConfig() shows no part of a setting when given arbitrary text", () => {
  const marker = "qzx9";
  const texts = fc.tuple(
    fc.constantFrom(
      "",
      "libsql://",
      "https://",
      "http://",
      "postgres://",
      "postgres://u:",
      "libsql:",
      "x:",
    ),
    fc.string({ unit: "binary" }),
    fc.constantFrom("", "@h/d", "@", "?a=", "#", "%", " "),
  ).map(([before, text, after]) =>
    `${before}${marker}${text}${marker}${after}`
  );
  const names = fc.constantFrom(
    ...Object.keys(GOOD),
    "PORT",
    "LIBSQL_MAX_MB",
  );
  fc.assert(
    fc.property(names, texts, (name, text) => {
      try {
        parse({ ...GOOD, [name]: text });
      } catch (error) {
        assert(error instanceof SyncError);
        assertEquals(error.message.includes(marker), false, error.message);
      }
    }),
    { seed: SEED, numRuns: 5_000 },
  );
});
