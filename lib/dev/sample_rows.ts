/**
 * Ring 3. Rows for the sample tables: made up, repeatable, and with the
 * characters that break careless code.
 *
 * @module
 */
import { type Random } from "./random.ts";

/** A row as the columns' values, ready for JSON. */
export type SampleRow = Record<string, unknown>;

const NAMES = [
  "Müller & Söhne",
  "Café Zoë",
  "Ångström Labs",
  "Łódź Logistik",
  "東京アプリ",
  "🚀 Rocket Apps",
  'The "Quoted" Company',
  "O'Brien's",
  "Größenwahn GmbH",
  "Família 👨‍👩‍👧‍👦",
  "back\\slash & co",
  "Ünïcödé, Inc.",
];
const WORDS = [
  "alpha",
  "bravo",
  "coral",
  "delta",
  "ember",
  "fjord",
  "grove",
  "harbor",
  "island",
];
const CHANNELS = [
  "production",
  "beta",
  "dev",
  "staging",
  "größe-test",
  "pre 🧪",
];
const FILES = [
  "index.html",
  "main.js",
  "style.css",
  "assets/logo.svg",
  "i18n/de-Ä.json",
  "a b.txt",
];
const STATUSES = [
  "created",
  "succeeded",
  "updated",
  "failed",
  "canceled",
  null,
];
const UPDATES = ["major", "minor", "patch", "version_number", "none"];

/** A version number like 3.11.2. */
const version = (random: Random) =>
  `${random.below(9)}.${random.below(20)}.${random.below(50)}`;

/** A moment of the last years with microseconds, in one time zone or another. */
function moment(random: Random): string {
  const day = new Date(
    Date.UTC(2022, random.below(48), 1 + random.below(28), random.below(24)),
  );
  const micros = String(random.below(1_000_000)).padStart(6, "0");
  const zone = random.pick(["+00", "+02", "-08", "+05:30"]);
  return `${day.toISOString().slice(0, 16)}:${
    String(random.below(60)).padStart(2, "0")
  }.${micros}${zone}`;
}

/** A row of orgs. */
export function orgRow(random: Random): SampleRow {
  const name = random.pick(NAMES);
  return {
    id: random.uuid(),
    created_by: random.uuid(),
    logo: random.chance(0.3)
      ? null
      : `https://cdn.example.com/${random.hex(8)}.png`,
    name,
    management_email: `admin+${random.hex(4)}@example.com`,
    customer_id: random.chance(0.1) ? null : `cus_${random.hex(14)}`,
    metadata: {
      plan: random.pick(["solo", "team"]),
      note: "stays at the source",
    },
  };
}

/** A row of apps. */
export function appRow(random: Random, owner: string): SampleRow {
  const word = random.pick(WORDS);
  return {
    id: random.uuid(),
    app_id: `com.example.${word}${random.hex(6)}`,
    icon_url: `https://cdn.example.com/${random.hex(8)}.png`,
    user_id: random.chance(0.2) ? null : random.uuid(),
    name: `${random.pick(NAMES)} ${word}`,
    last_version: random.chance(0.1) ? null : version(random),
    retention: random.pick([0, 2_592_000, 63_113_904]),
    owner_org: owner,
    default_upload_channel: random.pick(CHANNELS),
    transfer_history: Array.from({ length: random.below(3) }, () => ({
      transferred_at: moment(random),
      from: random.uuid(),
      reason: random.pick([
        '"moved"',
        "größer 🎉",
        "line\nbreak",
        "tab\tand \\",
      ]),
      ratio: random.below(1000) / 10,
    })),
  };
}

/** A row of app_versions, without its id. */
export function versionRow(random: Random, app: SampleRow): SampleRow {
  const isExternal = random.chance(0.1);
  const name = version(random);
  return {
    owner_org: app.owner_org,
    app_id: app.app_id,
    name,
    r2_path: isExternal
      ? null
      : `orgs/${app.owner_org}/apps/${app.app_id}/${name}.zip`,
    user_id: app.user_id,
    deleted: random.chance(0.15),
    external_url: isExternal
      ? `https://example.com/${random.hex(6)}?a=1&b=ü`
      : null,
    checksum: random.chance(0.05) ? "" : random.hex(64),
    session_key: random.chance(0.5)
      ? null
      : `${random.hex(24)}:${random.hex(24)}==`,
    storage_provider: isExternal
      ? "external"
      : random.pick(["r2", "r2-direct"]),
    min_update_version: random.chance(0.7) ? null : version(random),
    manifest_count: random.below(5),
    comment: random.pick([null, "stays at the source"]),
  };
}

/** A row of channels, without its id. */
export function channelRow(
  random: Random,
  app: SampleRow,
  versionId: number,
): SampleRow {
  return {
    name: random.pick(CHANNELS),
    app_id: app.app_id,
    version: versionId,
    created_by: app.user_id ?? random.uuid(),
    owner_org: app.owner_org,
    public: random.chance(0.3),
    disable_auto_update_under_native: random.chance(0.5),
    disable_auto_update: random.pick(UPDATES),
    ios: random.chance(0.9),
    android: random.chance(0.9),
    allow_device_self_set: random.chance(0.2),
    allow_emulator: random.chance(0.8),
    allow_dev: random.chance(0.8),
  };
}

/** A row of channel_devices, without its id. */
export function deviceRow(
  random: Random,
  app: SampleRow,
  channelId: number,
): SampleRow {
  return {
    channel_id: channelId,
    app_id: app.app_id,
    device_id: random.uuid(),
    owner_org: app.owner_org,
  };
}

/** A row of stripe_info, without its id. */
export function stripeRow(random: Random, customer: string): SampleRow {
  return {
    customer_id: customer,
    status: random.pick(STATUSES),
    trial_at: moment(random),
    is_good_plan: random.chance(0.1) ? null : random.chance(0.7),
    mau_exceeded: random.chance(0.1),
    storage_exceeded: random.chance(0.1),
    bandwidth_exceeded: random.chance(0.1),
    subscription_id: `sub_${random.hex(14)}`,
  };
}

/** A row of manifest, without its id. */
export function manifestRow(random: Random, versionId: number): SampleRow {
  const file = random.pick(FILES);
  return {
    app_version_id: versionId,
    file_name: file,
    s3_path: `manifest/${versionId}/${random.hex(8)}/${file}`,
    file_hash: random.hex(64),
    file_size: random.below(5_000_000),
  };
}
