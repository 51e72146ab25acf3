/**
 * Ring 3. The tables that the oracle's sessions write to.
 *
 * Promise: each has something that capture once could get wrong: cascades, a
 * deferrable key, partitions, triggers that change the row again, names and
 * types at the edges.
 *
 * @module
 */

import type { RawSchema } from "../db/support/stack.ts";

/** How many rows a table may get: few, so that writers meet. */
export const KEYS = 24;

/** Schema.json of the sessions. */
export const SCHEMA: RawSchema = {
  tables: {
    hot: {
      key: "id",
      columns: { id: "INTEGER", name: "TEXT", size: "INTEGER", note: "JSON" },
      indexes: ["name"],
    },
    pair: {
      key: ["a", "b"],
      columns: { a: "INTEGER", b: "TEXT", note: "TEXT" },
      indexes: [["b", "a"]],
    },
    parent: {
      key: "id",
      columns: { id: "INTEGER", label: "TEXT" },
      indexes: [],
    },
    child: {
      key: "id",
      columns: { id: "INTEGER", parent: "INTEGER", label: "TEXT" },
      indexes: ["parent"],
    },
    toy: {
      key: "id",
      columns: { id: "INTEGER", child: "INTEGER", label: "TEXT" },
      indexes: [],
    },
    tag: {
      key: "id",
      columns: { id: "INTEGER", parent: "INTEGER" },
      indexes: [],
    },
    tree: {
      key: "id",
      columns: { id: "INTEGER", above: "INTEGER", n: "INTEGER" },
      indexes: ["above"],
    },
    swap: {
      key: "id",
      columns: { id: "INTEGER", label: "TEXT" },
      indexes: [],
    },
    fat: {
      key: "id",
      columns: { id: "INTEGER", body: "TEXT" },
      indexes: [],
    },
    touch: {
      key: "id",
      columns: { id: "INTEGER", n: "INTEGER", seen: "INTEGER" },
      indexes: [],
    },
    kept: {
      key: "id",
      columns: { id: "INTEGER", label: "TEXT", deleted: "BOOLEAN" },
      indexes: [],
    },
    part: {
      key: ["region", "id"],
      columns: { region: "TEXT", id: "INTEGER", label: "TEXT" },
      indexes: [],
    },
    strict: {
      key: "id",
      columns: { id: "INTEGER", n: "INTEGER", b: "BOOLEAN" },
      indexes: [],
    },
    other: {
      key: "id",
      columns: { code: "TEXT", id: "INTEGER", label: "TEXT" },
      indexes: [],
    },
    'odd "name"; --': {
      key: ["select", "Ünï 'x'"],
      columns: { "select": "INTEGER", "Ünï 'x'": "TEXT", "rowid": "TEXT" },
      indexes: ["rowid"],
    },
    folded: {
      key: "id",
      columns: { id: "TEXT", label: "TEXT" },
      indexes: [],
    },
    made: {
      key: "id",
      columns: { id: "INTEGER", a: "INTEGER", twice: "INTEGER" },
      indexes: [],
    },
    edges: {
      key: "id",
      columns: {
        id: "TEXT",
        t: "TEXT",
        i: "INTEGER",
        num: "TEXT",
        f: "TEXT",
        yes: "BOOLEAN",
        at: "TEXT",
        day: "TEXT",
        span: "TEXT",
        raw: "TEXT",
        js: "JSON",
        jb: "JSON",
        jt: "TEXT",
        list: "JSON",
        comp: "TEXT",
        padded: "TEXT",
        mood: "TEXT",
        reach: "TEXT",
        host: "TEXT",
      },
      indexes: [],
    },
  },
};

const { other: _, toy: __, ...fewer } = SCHEMA.tables;
const { note: ___, ...narrowHot } = SCHEMA.tables.hot!.columns;

/** What schema.json is changed to and from: the first is the whole of it. */
export const SCHEMAS: readonly RawSchema[] = [
  SCHEMA,
  // Two tables and two columns fewer, a type and an index changed.
  {
    tables: {
      ...fewer,
      hot: { ...SCHEMA.tables.hot!, columns: narrowHot, indexes: [] },
      pair: {
        ...SCHEMA.tables.pair!,
        columns: { a: "INTEGER", b: "TEXT" },
      },
      touch: {
        ...SCHEMA.tables.touch!,
        columns: { id: "INTEGER", n: "TEXT", seen: "INTEGER" },
      },
      child: { ...SCHEMA.tables.child!, indexes: ["label", "parent"] },
    },
  },
  // A key changed, what was refused is none any more.
  {
    tables: {
      ...SCHEMA.tables,
      other: { ...SCHEMA.tables.other!, key: "code" },
      strict: {
        ...SCHEMA.tables.strict!,
        columns: { id: "INTEGER", n: "TEXT", b: "TEXT" },
      },
      part: {
        ...SCHEMA.tables.part!,
        columns: { region: "TEXT", id: "INTEGER" },
      },
    },
  },
];

/** What makes the tables; run as the owner before the worker's triggers are made. */
export const TABLES = `
create table public.hot (id bigint primary key, name text, size numeric, note jsonb, secret text);
create table public.pair (a bigint, b text, note text, primary key (a, b));
create table public.parent (id bigint primary key, label text);
create table public.child (
  id bigint primary key,
  parent bigint references public.parent on update cascade on delete cascade,
  label text check (label <> 'refused'));
create table public.toy (
  id bigint primary key,
  child bigint default 1 references public.child on update cascade on delete set null,
  label text);
create table public.tag (
  id bigint primary key,
  parent bigint references public.parent deferrable initially deferred);
-- Cascades within one table: several statements of it end at one depth.
create table public.tree (
  id bigint primary key,
  above bigint references public.tree on update cascade on delete cascade,
  n integer);
-- Rows of which a page holds only some.
create table public.fat (id bigint primary key, body text);
-- Deferrable, checked at the end of each statement. INITIALLY DEFERRED is a known
-- limit: two transactions may then hold one key at once.
create table public.swap (id bigint primary key deferrable initially immediate, label text);

-- The user's own trigger changes the row once more, so the inner statement ends first.
create table public.touch (id bigint primary key, n integer, seen integer not null default 0);
create function public.touched() returns trigger language plpgsql as $$
begin
  if pg_catalog.pg_trigger_depth() < 2 then
    update public.touch set seen = seen + 1 where id = new.id;
  end if;
  return null;
end $$;
create trigger zz_touched after insert or update on public.touch
for each row execute function public.touched();
create function public.bump(bigint) returns integer language sql volatile as
  'update public.touch set n = coalesce(n, 0) + 100 where id = $1 returning n';

-- A delete that only marks, an insert that is skipped, a value that is changed.
create table public.kept (id bigint primary key, label text, deleted boolean not null default false);
create function public.keeping() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' then
    if old.deleted then return old; end if;
    update public.kept set deleted = true where id = old.id;
    return null;
  end if;
  if new.label = 'skip' then return null; end if;
  new.label := pg_catalog.upper(new.label);
  return new;
end $$;
create trigger keeping before insert or update or delete on public.kept
for each row execute function public.keeping();

create table public.part (region text, id bigint, label text, primary key (region, id)) partition by list (region);
create table public.part_a partition of public.part for values in ('a');
create table public.part_b partition of public.part for values in ('b') partition by range (id);
create table public.part_b_low partition of public.part_b for values from (minvalue) to (12);
create table public.part_b_high partition of public.part_b for values from (12) to (maxvalue);
create table public.part_rest partition of public.part default;

-- Values that INTEGER and BOOLEAN cannot hold are set aside.
create table public.strict (id bigint primary key, n numeric, b text);

-- Replicated by another key than its primary one.
create table public.other (code varchar(20) primary key, id bigint not null unique, label text);

create table public."odd ""name""; --" ("select" integer, "Ünï 'x'" text, rowid text, primary key ("select", "Ünï 'x'"));

create collation public.fold (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create table public.folded (id text collate public.fold primary key, label text collate public.fold);

create table public.made (
  id bigint generated by default as identity primary key, a integer,
  twice bigint generated always as (a * 2::bigint) stored);

create type public.mood as enum ('sad', 'ok', 'Happy "!"');
create type public.spot as (x integer, y text);
create table public.edges (
  id uuid primary key, t text, i bigint, num numeric, f float8, yes boolean,
  at timestamptz, day date, span interval, raw bytea, js json, jb jsonb, jt json,
  list text[], comp public.spot, padded char(5), mood public.mood, reach int8range, host inet);

-- A view that is written through, and one with a trigger that does it.
create view public.some_hot as select id, name from public.hot where id <= 12 with check option;
create view public.family as
  select c.id, c.label, p.label as parent_label from public.child c join public.parent p on p.id = c.parent;
create function public.family_written() returns trigger language plpgsql as $$
begin
  update public.child set label = new.label where id = old.id;
  update public.parent set label = new.parent_label
  where id = (select parent from public.child where id = old.id);
  return new;
end $$;
create trigger written instead of update on public.family
for each row execute function public.family_written();

-- Not replicated: a statement trigger of the user's writes here.
create table public.audit (id bigint generated always as identity primary key, what text);
create function public.audited() returns trigger language plpgsql as $$
begin
  insert into public.audit (what) values (tg_op);
  update public.hot set secret = 'audited' where id = 0;
  return null;
end $$;
-- And one that writes when the transaction is about to commit.
create function public.noted_late() returns trigger language plpgsql as $$
begin
  update public.pair set note = coalesce(note, '') || ' at commit'
  where a = new.a and b = new.b and new.a < 5;
  return null;
end $$;
create constraint trigger noted_late after insert on public.pair
deferrable initially deferred for each row execute function public.noted_late();
create trigger audited after update on public.pair
for each statement execute function public.audited();

grant usage on schema public to authenticated;
grant all on all tables in schema public to authenticated;
grant all on all sequences in schema public to authenticated;
`;
