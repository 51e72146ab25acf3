/**
 * Ring 3. Faults on the way between worker and databases: cut, held, refused,
 * late.
 *
 * Promise: what is armed happens to the next bytes or the next request, whose
 * ever they are.
 *
 * @module
 */

import type { Random } from "../../lib/dev/random.ts";
import type { Fault, Proxy } from "../db/support/http_proxy.ts";
import type { Cutter, Way } from "./cutter.ts";
import { sleep } from "./writer.ts";

/** What the HTTP proxy does with a request that comes. */
type Armed =
  | { fault: Fault }
  | { lateMs: number }
  /** Refused after a while, as a gateway does, and carried out later still. */
  | { slowMs: number; laterMs: number };

/** Both ways: by HTTP to libSQL, and to PostgreSQL. */
export class Wire {
  readonly #armed: Armed[] = [];
  /** Requests that come late, still to be waited for. */
  readonly #late = new Set<Promise<void>>();

  constructor(
    readonly replica: Cutter,
    readonly source: Cutter,
    proxy: Proxy,
    private readonly random: Random,
  ) {
    proxy.decide = () => this.#decide();
  }

  /** Cuts the next connection after some bytes. */
  cut(cutter: Cutter, way: Way, bytesMax: readonly number[]): void {
    const { random } = this;
    const afterBytes = random.below(random.pick(bytesMax));
    cutter.arm({ way, kind: "close", afterBytes });
  }

  /** Holds the next bytes back until `release`. */
  hold(cutter: Cutter, way: Way): void {
    cutter.arm({ way, kind: "hold", afterBytes: this.random.below(400) });
  }

  /** The next requests get a status, carried out or not. */
  refuse(): void {
    const { random } = this;
    const status = random.pick([421, 502, 503, 500]);
    for (let i = 1 + random.below(3); i > 0; i--) {
      const fault = random.chance(0.5) ? { status } : { lose: status };
      this.#armed.push({ fault });
    }
  }

  /** The next request is carried out late. */
  delay(): void {
    this.#armed.push({ lateMs: this.random.below(3_000) });
  }

  /** The next request is refused, and carried out all the same. */
  refuseAndDelay(): void {
    const { random } = this;
    // Longer than an apply that is called slow: the next batches are smaller.
    const slowMs = random.chance(0.4) ? 2_050 : random.below(200);
    this.#armed.push({ slowMs, laterMs: random.below(4_000) });
  }

  /** Lets pass what is held. */
  release(): void {
    this.replica.release();
    this.source.release();
  }

  /** Nothing more is done to anything; what is late has come. */
  async stop(): Promise<void> {
    this.#armed.length = 0;
    this.release();
    await Promise.all(this.#late);
  }

  async #decide(): Promise<Fault> {
    const armed = this.#armed.shift();
    if (armed === undefined) return undefined;
    if ("fault" in armed) return armed.fault;
    if ("lateMs" in armed) {
      await this.#later(armed.lateMs);
      return undefined;
    }
    const later = this.#later(armed.slowMs + armed.laterMs);
    await sleep(armed.slowMs);
    return { status: 503, later };
  }

  async #later(ms: number): Promise<void> {
    const late = sleep(ms);
    this.#late.add(late);
    await late;
    this.#late.delete(late);
  }
}
