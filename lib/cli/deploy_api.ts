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

/** A call to make. */
interface ApiCall {
  /** What it does, as the rest of a sentence. */
  readonly action: string;
  readonly method: string;
  /** Its path, below the script's own. */
  readonly path: string;
  readonly body?: unknown;
  /** Whether only the account's key may make it. */
  readonly byAccount?: boolean;
}

/** A key, with the header and the setting that name it. */
interface Key {
  readonly header: "AccessKey" | "DeploymentKey";
  readonly setting: "BUNNY_ACCESS_KEY" | "BUNNY_DEPLOYMENT_KEY";
  readonly value: string;
}

/** Makes one call; resolves to its JSON, or null if the answer has none. */
async function call(script: Script, request: ApiCall): Promise<unknown> {
  const { action } = request;
  const key = keyFor(script, request);
  if (key.value === "") {
    throw new CommandError(`Cannot ${action}: set ${key.setting}`);
  }
  const { status, text } = await send(script, request, key);
  if (status < 200 || status > 299) {
    const advice = status === 401 || status === 403
      ? `check ${key.setting}`
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

/** Chooses the key that can do less, if it can do this. */
function keyFor(
  { accessKey, deploymentKey }: Script,
  { byAccount = false }: ApiCall,
): Key {
  return byAccount || deploymentKey === ""
    ? { header: "AccessKey", setting: "BUNNY_ACCESS_KEY", value: accessKey }
    : {
      header: "DeploymentKey",
      setting: "BUNNY_DEPLOYMENT_KEY",
      value: deploymentKey,
    };
}

async function send(
  { apiUrl, id }: Script,
  { action, method, path, body }: ApiCall,
  key: Key,
): Promise<{ status: number; text: string }> {
  try {
    const response = await fetch(`${apiUrl}/compute/script/${id}/${path}`, {
      method,
      headers: {
        Accept: "application/json",
        [key.header]: key.value,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      redirect: "manual",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    return { status: response.status, text: await response.text() };
  } catch (cause) {
    throw new CommandError(
      `Cannot ${action}: expected an answer of ${
        new URL(apiUrl).host
      }, found none`,
      { cause },
    );
  }
}
