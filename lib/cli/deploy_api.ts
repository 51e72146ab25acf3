/**
 * Ring 3. The calls of Bunny's API that a deployment makes.
 *
 * Promise: a key is sent to Bunny alone, and no text of an answer is shown.
 *
 * @module
 */

import { CommandError } from "./command.ts";

/** How to reach one script. */
export interface Script {
  /** https://api.bunny.net, except in tests. */
  readonly apiUrl: string;
  /** The script's number. */
  readonly id: string;
  /** The account's key, needed for secrets and the list of releases; or "". */
  readonly accessKey: string;
  /** The script's own key, which can only upload and publish; or "". */
  readonly deploymentKey: string;
}

/** A release: the part that a deployment reads. */
export interface Release {
  /** Its name. */
  readonly uuid: string;
  /** Whether it is published now. */
  readonly isLive: boolean;
  /** The note it was published with. */
  readonly note: string;
  /** When it was made: ISO 8601. */
  readonly made: string;
}

/** An upload is slow on a slow line. */
const TIMEOUT_MS = 60_000;
/** Bunny's own numbers: 1 is live, 0 archived. */
const LIVE = 1;

/**
 * Uploads code; it serves no request before it is published.
 *
 * @param script The script.
 * @param code The bundle.
 * @throws {CommandError} If Bunny refuses.
 */
export async function upload(script: Script, code: string): Promise<void> {
  await call(script, {
    action: "upload the code",
    method: "POST",
    path: "code",
    body: { Code: code },
  });
}

/**
 * Publishes the code uploaded last, or an earlier release.
 *
 * @param script The script.
 * @param what A note to recognize it by, or the release's name.
 * @throws {CommandError} If Bunny refuses.
 */
export async function publish(
  script: Script,
  what: { note: string } | { uuid: string },
): Promise<void> {
  const isOld = "uuid" in what;
  await call(script, {
    action: "publish",
    method: "POST",
    path: isOld ? `publish/${encodeURIComponent(what.uuid)}` : "publish",
    body: isOld ? {} : { Note: what.note },
  });
}

/**
 * Sets a secret, which the script reads as a variable.
 *
 * @param script The script.
 * @param secret Its name and value.
 * @throws {CommandError} If Bunny refuses.
 */
export async function putSecret(
  script: Script,
  secret: { name: string; value: string },
): Promise<void> {
  await call(script, {
    action: `set ${secret.name}`,
    method: "PUT",
    path: "secrets",
    body: { Name: secret.name, Secret: secret.value },
    byAccount: true,
  });
}

/**
 * Lists the releases.
 *
 * @param script The script.
 * @returns The releases that are not deleted, as Bunny orders them.
 * @throws {CommandError} If Bunny refuses.
 */
export async function listReleases(script: Script): Promise<Release[]> {
  const answer = await call(script, {
    action: "list the releases",
    method: "GET",
    path: "releases",
    byAccount: true,
  });
  const { Items } = (answer ?? {}) as { Items?: unknown };
  if (!Array.isArray(Items)) {
    throw new CommandError(
      "Cannot list the releases: expected a list in Bunny's answer, found none",
    );
  }
  return Items.filter((item) => item?.Uuid && !item.Deleted).map((item) => ({
    uuid: String(item.Uuid),
    isLive: item.Status === LIVE,
    note: String(item.Note ?? ""),
    made: String(item.DateReleased ?? ""),
  }));
}

/** Makes one call; resolves to its JSON, or null if the answer has none. */
async function call(
  script: Script,
  request: {
    action: string;
    method: string;
    path: string;
    body?: unknown;
    byAccount?: boolean;
  },
): Promise<unknown> {
  const { action, method, path, body, byAccount = false } = request;
  // The key that can do less is preferred.
  const isAccount = byAccount || script.deploymentKey === "";
  const name = isAccount ? "BUNNY_ACCESS_KEY" : "BUNNY_DEPLOYMENT_KEY";
  const key = isAccount ? script.accessKey : script.deploymentKey;
  if (key === "") throw new CommandError(`Cannot ${action}: set ${name}`);
  let status: number;
  let text: string;
  try {
    const response = await fetch(
      `${script.apiUrl}/compute/script/${script.id}/${path}`,
      {
        method,
        headers: {
          Accept: "application/json",
          [isAccount ? "AccessKey" : "DeploymentKey"]: key,
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
        redirect: "manual",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      },
    );
    status = response.status;
    text = await response.text();
  } catch (cause) {
    throw new CommandError(
      `Cannot ${action}: expected an answer of ${
        new URL(script.apiUrl).host
      }, found none`,
      { cause },
    );
  }
  if (status < 200 || status > 299) {
    const advice = status === 401 || status === 403
      ? `check ${name}`
      : status === 404
      ? "check BUNNY_SCRIPT_ID, and that the key belongs to it"
      : "try again later";
    throw new CommandError(
      `Cannot ${action}: Bunny answered HTTP ${status}; ${advice}`,
    );
  }
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
