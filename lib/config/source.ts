/**
 * Ring 0. The settings that say how the source is reached.
 *
 * Promise: they are checked together, as which of them are read depends on
 * PGMQ_URL.
 *
 * @module
 */

import { fromBase64 } from "../bytes.ts";
import { foundScheme, lengthOf, type Report, schemeOf } from "./found.ts";
import { parsePostgresUrl } from "../postgres/url.ts";

/** The settings of the source. */
export interface PgmqSettings {
  /** PostgreSQL's connection string, or PostgREST's address without a slash at the end. */
  readonly pgmqUrl: string;
  /** The key of the gateway in front of PostgREST; empty if it asks for none. */
  readonly pgmqApiKey: string;
  /** The JWT for PostgREST; empty for a connection string. */
  readonly pgmqToken: string;
  /** PEM of the CA that PostgreSQL's certificate is verified by; empty for the well-known ones. */
  readonly pgmqCa: string;
}

/**
 * Reads and checks the settings of the source.
 *
 * PGMQ_API_KEY and PGMQ_TOKEN are read if PGMQ_URL is https:// or http://,
 * PGMQ_CA if it is not.
 *
 * @param read Reads a setting; empty if it is not set.
 * @param report Takes each problem.
 * @returns The settings, which may be used if nothing was reported.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const settings: Record<string, string> = { PGMQ_URL: "postgres://h/d" };
 * const { pgmqUrl } = parsePgmq((name) => settings[name] ?? "", () => {});
 * assertEquals(pgmqUrl, "postgres://h/d");
 * ```
 */
export function parsePgmq(
  read: (name: string) => string,
  report: Report,
): PgmqSettings {
  const pgmqUrl = read("PGMQ_URL").trim();
  // All are read, whichever are used: so `deploy secrets` learns their names.
  const keys = {
    pgmqApiKey: read("PGMQ_API_KEY"),
    pgmqToken: read("PGMQ_TOKEN"),
  };
  const isRest = /^https?$/.test(schemeOf(pgmqUrl) ?? "");
  const ca = parseCa(read("PGMQ_CA"));
  if (ca === null) {
    report(
      `PGMQ_CA must be a certificate as PEM, or the base64 of one: found ${
        lengthOf(read("PGMQ_CA"))
      } of something else; copy the file of your database's CA.`,
    );
  }
  if (isRest) {
    return {
      ...parseRestKeys(keys, report),
      pgmqUrl: parseRestUrl(pgmqUrl, report),
      pgmqCa: "",
    };
  }
  const hasCa = read("PGMQ_CA") !== "";
  return {
    pgmqUrl: parsePgmqUrl(pgmqUrl, { hasCa, report }),
    pgmqApiKey: "",
    pgmqToken: "",
    pgmqCa: ca ?? "",
  };
}

/** The gateway's key and the worker's token, neither of which may be a master key. */
function parseRestKeys(
  keys: Pick<PgmqSettings, "pgmqApiKey" | "pgmqToken">,
  report: Report,
): Pick<PgmqSettings, "pgmqApiKey" | "pgmqToken"> {
  const { pgmqApiKey, pgmqToken } = keys;
  if (
    !/^[\x21-\x7e]*$/.test(pgmqApiKey) || pgmqApiKey.startsWith("sb_secret_")
  ) {
    report(
      `PGMQ_API_KEY must be the project's publishable (anon) key: found ${
        lengthOf(pgmqApiKey)
      } of something else; a secret key is never needed here.`,
    );
  }
  const role = roleIn(pgmqToken);
  if (role === null || role === "service_role") {
    report(
      `PGMQ_TOKEN must be a JWT whose claim "role" is the worker's role: found ${
        pgmqToken === ""
          ? "nothing"
          : role === null
          ? `${lengthOf(pgmqToken)} of something else`
          : "service_role"
      }; https:// in PGMQ_URL needs it; never use the service key.`,
    );
  }
  return keys;
}

function parseRestUrl(text: string, report: Report): string {
  const url = URL.parse(text);
  const isBare = url !== null && url.pathname === "/" &&
    url.hostname.endsWith(".supabase.co");
  if (
    url === null || isBare ||
    url.username + url.password + url.search + url.hash !== ""
  ) {
    report(
      `PGMQ_URL must be the address of PostgREST if it is https://: found ${
        url === null
          ? `${lengthOf(text)} that are not a URL`
          : isBare
          ? "a Supabase project without a path"
          : "a user, a password, a query or a fragment too"
      }; write https://PROJECT.supabase.co/rest/v1.`,
    );
    return "";
  }
  return url.origin + url.pathname.replace(/\/+$/, "");
}

/** The role that a JWT names; null if there is none. */
function roleIn(token: string): string | null {
  const [, claims] = /^[\w-]+\.([\w-]+)\.[\w-]+$/.exec(token) ?? [];
  try {
    const { role } = JSON.parse(new TextDecoder().decode(fromBase64(claims!)));
    return typeof role === "string" && role !== "" ? role : null;
  } catch {
    return null;
  }
}

/**
 * Certificates as PEM, from PEM or base64 as a dashboard may store it: without
 * line ends, with "\n" for them, or encoded once more. Null if it is something
 * else.
 */
function parseCa(given: string): string | null {
  let text = given.replace(/\\n/g, "\n").trim();
  if (text === "") return "";
  if (!text.startsWith("-----")) {
    const decoded = decode(text);
    const inner = decoded && new TextDecoder().decode(decoded);
    if (inner?.startsWith("-----BEGIN")) text = inner;
  }
  const inner = text.startsWith("-----")
    ? [...text.matchAll(
      /-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----/g,
    )].map(([, body]) => body!)
    : [text];
  const bodies = inner.map((body) => body.replace(/\s+/g, ""));
  // A certificate is an ASN.1 sequence, with a length of two bytes.
  const isOne = (body: string) => {
    const [tag, size] = decode(body) ?? [];
    return tag === 0x30 && size === 0x82;
  };
  if (bodies.length === 0 || !bodies.every(isOne)) return null;
  return bodies.map((body) =>
    `-----BEGIN CERTIFICATE-----\n${
      body.replace(/.{64}/g, "$&\n").trim()
    }\n-----END CERTIFICATE-----\n`
  ).join("");
}

function decode(base64: string): Uint8Array | null {
  try {
    return fromBase64(base64);
  } catch {
    return null;
  }
}

function parsePgmqUrl(
  text: string,
  { hasCa, report }: { hasCa: boolean; report: Report },
): string {
  const refuse = (found: string, advice: string) => {
    report(
      `PGMQ_URL must be postgres:// or postgresql:// and a host, or https://: found ${found}; ${advice}.`,
    );
    return "";
  };
  const copy = "copy the connection string from the database's page";
  const escape =
    "in the user and the password, write # / ? @ : and % as %23 %2F %3F %40 %3A and %25";
  const scheme = schemeOf(text);
  if (text === "") return refuse("nothing", copy);
  if (scheme !== "postgres" && scheme !== "postgresql") {
    return refuse(foundScheme(text), copy);
  }
  const url = URL.parse(text);
  if (url === null) {
    return refuse(`${lengthOf(text)} that are not a URL`, escape);
  }
  if (url.hostname === "") {
    return refuse("no host", "name it after the user and the password");
  }
  try {
    decodeURIComponent(url.username + url.password);
  } catch {
    return refuse("a stray % in the user or the password", escape);
  }
  try {
    parsePostgresUrl(text, { hasCa });
  } catch (error) {
    const found = error instanceof RangeError ? error.message : "a stray %";
    return refuse(found, "check what follows the host");
  }
  return text;
}
