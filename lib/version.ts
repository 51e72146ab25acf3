/**
 * Ring 0. The release: the one place that says it.
 *
 * Three numbers are easily mixed up:
 * - the release, `0.1.0`, is this one: people, CHANGELOG.md and tags name it;
 * - the build is the hash that `deno task deploy` puts into the bundle. /health
 *   and /status answer with both, as `0.1.0+<build>`, in their `version`;
 * - the contract is the number that the worker and the source's functions must
 *   share (`CONTRACT` in lib/chain/claim.ts, `libsql_sync.version()` in SQL). It rises only
 *   if one of them could no longer understand the other.
 *
 * @module
 */

/** The release. deno.json and CHANGELOG.md repeat it, and a test compares them. */
export const RELEASE = "0.1.0";
