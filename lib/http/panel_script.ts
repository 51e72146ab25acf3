/**
 * Ring 3. The script that runs in the operator's browser.
 *
 * Promise: it is one function that uses nothing outside itself, because its text
 * is sent; what the worker answers becomes text, never markup.
 *
 * @module
 */

import type { WorkerStatus } from "../status/status.ts";

/** A browser's element, as far as it is used: Deno has no type for it. */
interface Part {
  hidden: boolean;
  value: string;
  className: string;
  readonly clientWidth: number;
  append(...children: (Part | string)[]): void;
  replaceChildren(...children: (Part | string)[]): void;
  setAttribute(name: string, text: string): void;
  removeAttribute(name: string): void;
  addEventListener(name: string, heard: (event: Event) => void): void;
  focus(): void;
}
declare const document: {
  readonly body: Part;
  readonly hidden: boolean;
  createElement(tag: string): Part;
  createElementNS(space: string, tag: string): Part;
  getElementById(id: string): Part | null;
};

/** Shows the status, and sends the verbs. */
export function panelScript(): void {
  const KEY = "libsql-sync";
  const EVERY_MS = 10_000;
  const byId = (id: string) => document.getElementById(id)!;
  const input = byId("secret");
  const shown: Record<string, string> = {};
  const storage = sessionStorage;
  let isBusy = false;

  const make = (
    tag: string,
    attributes: Record<string, unknown> = {},
    ...children: (Part | string)[]
  ): Part => {
    const isDrawn = /^(svg|g|path|rect|text|title|line)$/.test(tag);
    const element = isDrawn
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const name in attributes) {
      element.setAttribute(name, String(attributes[name]));
    }
    element.append(...children);
    return element;
  };
  /** Replaces what has changed; what has not keeps its elements and their focus. */
  const show = (id: string, data: unknown, build: () => (Part | string)[]) => {
    const text = JSON.stringify(data);
    if (shown[id] === text) return;
    shown[id] = text;
    byId(id).replaceChildren(...build());
  };
  const say = (id: string, text: string) => show(id, text, () => [text]);
  const count = (n: number) => n.toLocaleString("en");
  const age = (ms: number) => {
    if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
    for (
      const [unit, size] of [["d", 86_400], ["h", 3_600], ["min", 60]] as const
    ) if (ms >= size * 1_000) return `${Math.floor(ms / size / 1_000)} ${unit}`;
    return `${Math.floor(ms / 1_000)} s`;
  };
  const ago = (time: string | null) =>
    time === null ? "never" : make(
      "time",
      { datetime: time, title: time },
      `${age(Math.max(1_000, Date.now() - Date.parse(time)))} ago`,
    );

  const call = async (method: string, path: string) => {
    const response = await fetch(path, {
      method,
      headers: { "x-webhook-signature": storage.getItem(KEY) ?? "" },
      cache: "no-store",
    });
    const body = await response.json();
    if (response.status === 401) close("The worker expects another secret.");
    if (!response.ok) throw new Error(body.message);
    return body;
  };
  const close = (why: string) => {
    storage.removeItem(KEY);
    say("state", why);
    byId("all").hidden = true;
    byId("door").hidden = false;
    input.focus();
  };

  const rowsOf = (head: string[], rows: (Part | string)[][]) => [
    make(
      "thead",
      {},
      make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text))),
    ),
    make(
      "tbody",
      {},
      ...rows.map(([first, ...rest]) =>
        make(
          "tr",
          {},
          make("th", { scope: "row" }, first!),
          ...rest.map((cell) => make("td", {}, cell)),
        )
      ),
    ),
  ];
  /** Plots three hours by the minute: bars, or a line over the minutes with a sync. */
  const plot = (
    id: string,
    points: readonly (readonly [minute: number, value: number])[],
    { name, unit, isLine }: {
      name: string;
      unit: (value: number) => string;
      isLine: boolean;
    },
  ) => {
    const figure = byId(id);
    const now = Math.floor(Date.now() / 60_000);
    const width = figure.clientWidth - 26;
    const height = 120;
    const bottom = height - 18;
    const highest = Math.max(0, ...points.map(([, value]) => value));
    const x = (minute: number) => (1 - (now - minute + 0.5) / 180) * width;
    const y = (value: number) =>
      bottom - value / (highest || 1) * (bottom - 18);
    const latest = points.at(-1)?.[1] ?? 0;
    show(id, [points, width, now], () => [
      make(
        "svg",
        {
          role: "img",
          width,
          height,
          "aria-label": `${name} over three hours: highest ${
            unit(highest)
          }, latest ${unit(latest)}`,
        },
        make("line", { x1: 0, x2: width, y1: bottom, y2: bottom }),
        make("text", { x: 0, y: 12 }, unit(highest)),
        make("text", { x: 0, y: height - 5 }, "3 h ago"),
        make("text", { x: width, y: height - 5, "text-anchor": "end" }, "now"),
        ...(isLine && points.length > 0
          ? [make("path", {
            d: "M" + points.map(([minute, value]) =>
              `${x(minute).toFixed(1)},${y(value).toFixed(1)}`
            ).join("L"),
          })]
          : []),
        ...points.map(([minute, value]) => {
          const top = isLine ? y(value) - 2 : Math.min(y(value), bottom - 1);
          return make(
            "rect",
            {
              x: (x(minute) - 1.5).toFixed(1),
              y: top.toFixed(1),
              width: isLine ? 3 : width / 180,
              height: (isLine ? 4 : bottom - top).toFixed(1),
            },
            make(
              "title",
              {},
              `${new Date(minute * 60_000).toLocaleTimeString()}: ${
                unit(value)
              }`,
            ),
          );
        }),
      ),
    ]);
  };
  const redrive = (id: number | null) => {
    const attributes = id === null ? {} : { "aria-label": `Redrive ${id}` };
    const button = make(
      "button",
      attributes,
      id === null ? "Redrive all" : "Redrive",
    );
    button.addEventListener("click", () =>
      run(async () => {
        const { tried } = await call(
          "POST",
          "/redrive" + (id === null ? "" : `?id=${id}`),
        );
        await call("POST", "/sync");
        return `${tried} tried again.`;
      }));
    return button;
  };

  const render = (status: WorkerStatus) => {
    const { walk, letters, tables } = status;
    const passed = status.last_full_pass?.tables;
    const rowsIn = (name: string) =>
      tables.find((table) => table.name === name)?.rows ||
      passed?.[name]?.rows || 0;
    const isEqual = status.drained && status.walk_done &&
      status.queued === 0;
    say(
      "state",
      (status.replica_position === null
        ? "No sync yet."
        : isEqual
        ? "The replica equals the source."
        : status.walk_done
        ? "Changes are on their way."
        : "Tables are being walked.") +
        (status.fine ? "" : " Attention needed."),
    );
    document.body.className = status.fine ? isEqual ? "fine" : "" : "attention";
    const facts: [string, Part | string][] = [
      ["Lag", age(status.lag_ms)],
      [
        "Queued",
        count(status.queued) + (status.queued_exact ? "" : " or more"),
      ],
      ["Parked", count(status.dead_letters)],
      ["Last sync", ago(status.last_sync)],
      ["Position", `${status.replica_position ?? "-"} of ${status.position}`],
      ["Epoch", status.epoch.slice(0, 8)],
      ["Schema", status.schema.here.slice(0, 8)],
      ["Version", status.version ?? "-"],
    ];
    byId("now").replaceChildren(
      ...facts.map(([name, value]) =>
        make("div", {}, make("dt", {}, name), make("dd", {}, value))
      ),
    );
    show(
      "warnings",
      status.warnings.map(({ found }) => found),
      () =>
        status.warnings.map(({ level, found, advice }) =>
          make(
            "li",
            { class: level },
            found,
            ...(advice === null ? [] : [make("code", {}, advice)]),
          )
        ),
    );
    plot("lag", [
      ...status.minutes.map(({ minute, lag_ms }) => [minute, lag_ms] as const),
      [Date.now() / 60_000, status.lag_ms],
    ], { name: "Lag", unit: age, isLine: true });
    plot(
      "rate",
      status.minutes.map(({ minute, processed }) => [minute, processed]),
      { name: "Messages a minute", unit: count, isLine: false },
    );
    const total = walk === null
      ? 0
      : Object.keys(walk.tables).concat(tables.map(({ name }) => name))
        .filter((name, at, names) => names.indexOf(name) === at)
        .reduce((sum, name) => sum + rowsIn(name), 0);
    show(
      "walk",
      [walk, total, status.waiting_walks],
      () =>
        walk === null
          ? [
            status.waiting_walks > 0
              ? `${status.waiting_walks} waiting.`
              : "None.",
          ]
          : [
            make(
              "label",
              {},
              `${walk.kind} at ${walk.table} (${walk.half}): ${
                count(walk.rows)
              } of about ${count(Math.max(total, walk.rows))} rows, ${
                count(walk.differences)
              } different`,
              make("progress", {
                max: Math.max(total, walk.rows, 1),
                value: walk.rows,
              }),
            ),
          ],
    );
    byId("tables").replaceChildren(...rowsOf(
      ["Table", "Rows, about", "Rows applied", "Drift", "Last verified"],
      tables.map(({ name, applied, drift, verified_at }) => [
        name,
        count(rowsIn(name)),
        count(applied),
        count(drift),
        ago(verified_at),
      ]),
    ));
    byId("parked").hidden = !letters?.length;
    show("letters", letters, () =>
      rowsOf(
        ["Id", "", "Parked", "Table", "Key", "Reason"],
        (letters ?? []).map(({ id, parked_at, table, key, reason }) => [
          String(id),
          redrive(id),
          ago(parked_at),
          table ?? "-",
          key === null ? "-" : JSON.stringify(key),
          reason,
        ]),
      ));
    byId("syncs").replaceChildren(...rowsOf(
      ["Sync", "Ended", "Took", "Messages", "Batches", "Parked", "Outcome"],
      status.syncs.map((sync) => [
        String(sync.n),
        ago(sync.ended_at),
        age(sync.ms),
        count(sync.processed),
        count(sync.batches),
        count(sync.parked),
        sync.error ?? "done",
      ]),
    ));
  };

  const load = async () => {
    if (storage.getItem(KEY) === null) return;
    try {
      const status = await call("GET", "/status?letters=true");
      byId("door").hidden = true;
      byId("all").hidden = false;
      render(status);
    } catch (error) {
      if (storage.getItem(KEY) !== null) {
        say("state", `Cannot ask the worker: ${(error as Error).message}`);
      }
    }
  };
  const run = async (verb: () => Promise<string>) => {
    if (isBusy) return;
    isBusy = true;
    document.body.setAttribute("aria-busy", "true");
    say("said", "Running.");
    try {
      say("said", await verb());
    } catch (error) {
      say("said", (error as Error).message);
    }
    isBusy = false;
    document.body.removeAttribute("aria-busy");
    await load();
  };

  byId("door").addEventListener("submit", (event) => {
    event.preventDefault();
    storage.setItem(KEY, input.value);
    input.value = "";
    void load();
  });
  byId("leave").addEventListener("click", () => close("Closed."));
  byId("all-letters").append(redrive(null));
  for (const verb of ["sync", "verify", "backfill"]) {
    byId(verb).addEventListener("click", () =>
      run(async () => {
        for (;;) {
          const body = await call("POST", `/${verb}`);
          if (body.busy) {
            return body.paused
              ? "The worker is paused."
              : "Another sync is running.";
          }
          if (verb === "sync") {
            return `${count(body.processed)} messages, ${
              count(body.queued)
            } remaining.`;
          }
          const { done, differences } = body;
          const found = `${count(differences)} ${
            verb === "verify" ? "different" : "written"
          }`;
          if (done) return `Every row was compared: ${found}.`;
          say("said", `Running: ${found} so far.`);
          await load();
        }
      }));
  }
  setInterval(() => {
    if (!document.hidden && !isBusy) void load();
  }, EVERY_MS);
  if (storage.getItem(KEY) === null) input.focus();
  else void load();
}
