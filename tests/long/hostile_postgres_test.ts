/** Whatever stands behind PGMQ_URL says: the worker answers, and lives. */

import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { seededRandom } from "../../lib/dev/random.ts";
import {
  COLUMNS,
  concat,
  type Conversation,
  DONE,
  HostileServer,
  int32,
  message,
  READY,
  row,
} from "../db/support/hostile.ts";
import { SECRET } from "../db/support/stack.ts";
import { WorkerProcess } from "../db/support/worker_process.ts";
import { seed } from "../seed.ts";

const SEED = seed();
/** Requests with random talks, so many at once. */
const ROUNDS = Number(Deno.env.get("ROUNDS") ?? 2);
const AT_ONCE = 100;
/** The whole process, of which Deno itself takes about 100 MB. */
const RSS_MB_MAX = 600;

const MAIN = fileURLToPath(new URL("../../main.ts", import.meta.url));

/** Answers of the server to the first query, after a proper start. */
const toQuery = (...parts: Uint8Array[]) => async (client: Conversation) => {
  await client.read();
  await client.send(READY);
  await client.read();
  await client.send(...parts);
};
/** What it says instead of a proper start. */
const atStart = (...parts: (Uint8Array | string)[]) =>
async (
  client: Conversation,
) => {
  await client.read();
  for (const part of parts) {
    await client.send(part);
    await client.read();
  }
};
const sasl = message("R", concat(int32(10), "SCRAM-SHA-256\0\0"));
const saslContinue = (text: string) => message("R", concat(int32(11), text));
const answer = (text: string) => toQuery(COLUMNS, row(text), DONE);

const TALKS: Record<string, (client: Conversation) => Promise<void>> = {
  nothing: () => Promise.resolve(),
  "another protocol": atStart("HTTP/1.1 400 Bad Request\r\n\r\n"),
  "a close instead of a challenge": async (client) => {
    await client.read();
    await client.send(sasl);
  },
  "a challenge without salt": atStart(sasl, saslContinue("r=x")),
  "a challenge without a count": atStart(sasl, saslContinue("r=x,s=AAAA")),
  "a challenge of no text": atStart(sasl, saslContinue("")),
  "a challenge of 4 billion rounds": atStart(
    sasl,
    saslContinue("r=x,s=AAAA,i=4294967295"),
  ),
  "a challenge of -1 rounds": atStart(sasl, saslContinue("r=x,s=AAAA,i=-1")),
  "a wrong proof": atStart(
    sasl,
    saslContinue("r=x,s=AAAA,i=4096"),
    message("R", concat(int32(12), "v=AAAA")),
  ),
  "a kind of password nobody knows": atStart(message("R", int32(99))),
  "half a kind of password": atStart(message("R", [0])),
  "a copy in": toQuery(message("G", [0, 0, 0])),
  "a copy out": toQuery(message("H", [0, 0, 0]), message("d", "x")),
  "a copy both ways": toQuery(message("W", [0, 0, 0])),
  "columns without an end": toQuery(message("T", concat([0, 1], "answer"))),
  "more columns than there are": toQuery(
    message("T", concat([255, 255], "a\0", new Uint8Array(18))),
  ),
  "no columns": toQuery(message("T", [0, 0]), message("D", [0, 0]), DONE),
  "a row of no columns": toQuery(row("{}"), DONE),
  "half a row": toQuery(COLUMNS, message("D", [0, 1, 0, 0]), DONE),
  "a row longer than its message": toQuery(
    COLUMNS,
    message("D", concat([0, 1], int32(1_000_000), "{}")),
    DONE,
  ),
  "an end of nothing": toQuery(message("C"), message("Z")),
  "an error of nothing": toQuery(message("E"), message("Z", "I")),
  "an error of half a field": toQuery(message("E", "SERROR"), DONE),
  "messages of no length": toQuery(new Uint8Array(10_000)),
  "a message of length 3": toQuery(message("D", [], 3), DONE),
  "a message of 2 GB": toQuery(message("D", "x", 0x7fffffff)),
  "a message of 4 GB": toQuery(message("D", "x", 0xffffffff)),
  "no rows": toQuery(COLUMNS, DONE),
  "a NULL": toQuery(
    COLUMNS,
    message("D", concat([0, 1], int32(-1))),
    DONE,
  ),
  "half a JSON": answer('{"do": "gran'),
  "a JSON null": answer("null"),
  "a number": answer("5"),
  "another shape": answer('{"do": {"do": []}, "epoch": 5}'),
  "a lease of a number": answer('{"do": "granted", "epoch": 5}'),
  "a deep JSON": answer("[".repeat(200_000)),
  "bytes that are no UTF-8": toQuery(
    COLUMNS,
    message("D", concat([0, 1], int32(2), [255, 254])),
    DONE,
  ),
  "half an answer": toQuery(COLUMNS, row("{}").subarray(0, 9)),
  "notices without end": async (client) => {
    await toQuery()(client);
    for (;;) await client.send(message("N", "SNOTICE\0\0").subarray(0));
  },
  "an answer without end": async (client) => {
    await toQuery(COLUMNS)(client);
    const large = row("x".repeat(1_000_000));
    for (;;) await client.send(large);
  },
  "rows without end": async (client) => {
    await toQuery(COLUMNS)(client);
    const rows = concat(...Array.from({ length: 10_000 }, () => row("")));
    for (;;) await client.send(rows);
  },
  "a message of 1 GB": async (client) => {
    await toQuery(message("D", "", 1_073_741_823))(client);
    for (;;) await client.send(new Uint8Array(1_000_000));
  },
};

/** Proper messages with random bytes in, between or instead of them. */
function randomTalk(seed: number): (client: Conversation) => Promise<void> {
  const random = seededRandom(seed);
  const integer = (below: number) => random.below(below);
  const proper = [
    READY,
    sasl,
    saslContinue("r=x,s=AAAA,i=4096"),
    COLUMNS,
    row('{"do": "granted", "epoch": "e"}'),
    DONE,
    message("N", "SNOTICE\0C00000\0\0"),
    message("E", "SERROR\0C42883\0Mno\0\0"),
    message("S", "a\0b\0"),
  ];
  const bytes = (length: number) =>
    Uint8Array.from({ length }, () => integer(256));
  return async (client) => {
    await client.read();
    if (integer(2) === 0) await client.send(READY);
    for (let parts = 1 + integer(6); parts > 0; parts--) {
      const part = concat(proper[integer(proper.length)]!);
      const kind = integer(4);
      if (kind === 0) part[integer(part.length)] = integer(256);
      await client.send(
        kind === 1
          ? message("TDCRSZEKN"[integer(9)]!, bytes(integer(40)))
          : kind === 2
          ? bytes(integer(60))
          : part,
      );
      if (integer(3) === 0) await new Promise((done) => setTimeout(done, 1));
    }
  };
}

/** A worker before a server, and what it answers to /sync. */
async function withWorker(
  url: string,
  run: (
    post: (what: string) => Promise<void>,
    worker: WorkerProcess,
  ) => Promise<void>,
): Promise<void> {
  await using worker = await WorkerProcess.start(MAIN, {
    LIBSQL_URL: "http://127.0.0.1:9",
    PGMQ_URL: url,
    WEBHOOK_SIGNATURE: SECRET,
  });
  await run(async (what) => {
    const response = await fetch(`http://127.0.0.1:${worker.port}/sync`, {
      method: "POST",
      headers: { "x-webhook-signature": SECRET },
      signal: AbortSignal.timeout(60_000),
    }).catch((error) => {
      throw new Error(`no answer to ${what}`, { cause: error });
    });
    const { error, message } = await response.json();
    assert(
      response.status >= 500 && error !== "internal",
      `${what}: ${response.status} ${error} ${message}`,
    );
    const health = await fetch(`http://127.0.0.1:${worker.port}/health`);
    assertEquals(await health.text(), "OK", what);
  }, worker);
}

Deno.test("a worker answers 5xx and lives, for anything PostgreSQL's protocol brings", async () => {
  await using server = new HostileServer();
  await withWorker(server.url(), async (post, { process }) => {
    for (const [name, talk] of Object.entries(TALKS)) {
      server.talk = talk;
      await post(name);
    }
    let talks = 0;
    server.talk = (client) => randomTalk(SEED + talks++)(client);
    for (let round = 0; round < ROUNDS; round++) {
      const what = `SEED=${SEED}, round ${round}`;
      await Promise.all(Array.from({ length: AT_ONCE }, () => post(what)));
    }
    const status = await Deno.readTextFile(`/proc/${process.pid}/status`);
    const peakMb = Number(/VmHWM:\s+(\d+)/.exec(status)![1]) / 1024;
    assert(peakMb < RSS_MB_MAX, `the worker took ${peakMb} MB`);
  });
});

Deno.test("a worker answers 5xx and lives, for any answer to the request for TLS", async () => {
  await using server = new HostileServer();
  const toRequest = (...parts: (Uint8Array | string)[]) =>
  async (
    client: Conversation,
  ) => {
    await client.read();
    await client.send(...parts);
  };
  await withWorker(server.url("?sslmode=prefer"), async (post) => {
    for (
      const [name, talk] of Object.entries({
        nothing: toRequest(),
        "another protocol": toRequest("HTTP/1.1 400 Bad Request\r\n\r\n"),
        "yes and no TLS": toRequest("S", "no TLS at all, but a few bytes"),
        "yes and a start": toRequest("S", READY),
        "no and a copy": async (client: Conversation) => {
          await toRequest("N")(client);
          await toQuery(message("G", [0, 0, 0]))(client);
        },
      })
    ) {
      server.talk = talk;
      await post(name);
    }
  });
});
