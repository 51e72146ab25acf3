import { assertEquals, assertRejects } from "@std/assert";
import { limitConcurrency } from "../../lib/http/concurrency.ts";

/** A function that runs until it is ended. */
function createTask(name: string, events: string[]) {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const run = () => {
    events.push(`${name} starts`);
    return promise;
  };
  return { run, end: () => resolve(name), fail: reject };
}

/** Lets every promise that can settle do so. */
async function settle(): Promise<void> {
  for (let tick = 0; tick < 20; tick++) await Promise.resolve();
}

Deno.test("limitConcurrency() starts waiting functions in the order they came, one for each that ends", async () => {
  const events: string[] = [];
  const limited = limitConcurrency(2);
  const tasks = ["a", "b", "c", "d"].map((name) => createTask(name, events));
  const results = tasks.map(({ run }) => limited(run));
  await settle();
  assertEquals(events, ["a starts", "b starts"]);
  tasks[1]!.end();
  await settle();
  assertEquals(events, ["a starts", "b starts", "c starts"]);
  tasks[0]!.end();
  await settle();
  assertEquals(events.at(-1), "d starts");
  for (const { end } of tasks) end();
  assertEquals(await Promise.all(results), ["a", "b", "c", "d"]);
});

Deno.test("limitConcurrency() frees the place of a function that fails, whether it waited or not", async () => {
  const events: string[] = [];
  const limited = limitConcurrency(1);
  const failures = [createTask("a", events), createTask("b", events)];
  const rejected = failures.map(({ run, fail }) => {
    fail(new Error("gone"));
    return assertRejects(() => limited(run), Error, "gone");
  });
  await Promise.all(rejected);
  await assertRejects(
    () =>
      limited(() => {
        throw new TypeError("at once");
      }),
    TypeError,
  );
  assertEquals(await limited(() => Promise.resolve("runs")), "runs");
});

Deno.test("limitConcurrency() lets no newcomer pass one that waits, nor grows beyond its limit", async () => {
  const events: string[] = [];
  const limited = limitConcurrency(1);
  const tasks = ["a", "b", "c"].map((name) => createTask(name, events));
  const [a, b, c] = tasks as [
    typeof tasks[0],
    typeof tasks[0],
    typeof tasks[0],
  ];
  const first = limited(a.run);
  const second = limited(b.run);
  a.end();
  await first;
  // The place is free and already b's when c arrives.
  const third = limited(c.run);
  await settle();
  assertEquals(events, ["a starts", "b starts"]);
  b.end();
  c.end();
  await Promise.all([second, third]);
  assertEquals(events, ["a starts", "b starts", "c starts"]);
});
