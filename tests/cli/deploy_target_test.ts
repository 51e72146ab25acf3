import { assert, assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../../lib/cli/command.ts";
import { noteOf, readScript, versionIn } from "../../lib/cli/deploy_target.ts";

const read = (settings: Record<string, string>) =>
  readScript((name) => settings[name]);

Deno.test("readScript() takes either key, or both", () => {
  const script = { apiUrl: "https://api.bunny.net", id: "1" };
  assertEquals(read({ BUNNY_SCRIPT_ID: " 1 ", BUNNY_DEPLOYMENT_KEY: "d" }), {
    ...script,
    accessKey: "",
    deploymentKey: "d",
  });
  assertEquals(
    read({
      BUNNY_SCRIPT_ID: "1",
      BUNNY_ACCESS_KEY: "a\n",
      BUNNY_DEPLOYMENT_KEY: "d",
      BUNNY_API_URL: "http://127.0.0.1:9",
    }),
    {
      id: "1",
      apiUrl: "http://127.0.0.1:9",
      accessKey: "a",
      deploymentKey: "d",
    },
  );
});

Deno.test("readScript() names what cannot be used, and shows no key", () => {
  for (
    const [settings, said] of [
      [{}, "BUNNY_SCRIPT_ID must be the script's number"],
      [
        { BUNNY_SCRIPT_ID: "../1" },
        "BUNNY_SCRIPT_ID must be the script's number",
      ],
      [
        { BUNNY_SCRIPT_ID: "1" },
        "Set BUNNY_DEPLOYMENT_KEY or BUNNY_ACCESS_KEY",
      ],
      [
        { BUNNY_SCRIPT_ID: "1", BUNNY_DEPLOYMENT_KEY: "hunter2\u00e9" },
        "A key must consist of visible ASCII characters",
      ],
      [
        {
          BUNNY_SCRIPT_ID: "1",
          BUNNY_DEPLOYMENT_KEY: "k",
          BUNNY_ACCESS_KEY: "hunter2 b",
        },
        "A key must consist of visible ASCII characters",
      ],
      [
        {
          BUNNY_SCRIPT_ID: "1",
          BUNNY_ACCESS_KEY: "k",
          BUNNY_API_URL: "bunny",
        },
        "Cannot parse BUNNY_API_URL as a URL",
      ],
    ] as const
  ) {
    const error = assertThrows(() => read({ ...settings }), UsageError);
    assertEquals(error.message, said);
    assert(!error.message.includes("hunter2"));
  }
});

Deno.test("versionIn() reads what noteOf() wrote, and nothing from other notes", () => {
  assertEquals(versionIn(noteOf("abc123")), "abc123");
  for (const note of ["", "by hand", "libsql-sync", "x libsql-sync abc"]) {
    assertEquals(versionIn(note), null, note);
  }
});
