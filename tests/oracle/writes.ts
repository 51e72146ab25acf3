/**
 * Ring 3. The statements of the oracle's sessions, by what they write to.
 *
 * @module
 */

import type { Random } from "../../lib/dev/random.ts";
import { KEYS } from "./tables.ts";
import { edgeCells, literal, text } from "./values.ts";

const ODD = `public."odd ""name""; --"`;
const ODD_KEY = `"select", "Ünï 'x'"`;

/** A key of few. */
const id = (random: Random) => 1 + random.below(KEYS);
/** A text as a literal. */
const label = (random: Random) => literal(text(random));
/** A short text as a literal. */
const word = (random: Random) => literal(random.hex(3));

/** The id of a row of table `edges`. */
const edge = (random: Random) =>
  `'00000000-0000-4000-8000-0000000000${
    (16 + random.below(KEYS)).toString(16)
  }'`;

/** SQL, or what makes it. */
export type Make = string | ((random: Random) => string);

const HOT: readonly Make[] = [
  (r) =>
    `insert into hot values (${id(r)}, ${label(r)}, ${
      r.below(1e6)
    }, '{"n": 1}') on conflict (id) do update set name = excluded.name, size = hot.size + 1`,
  (r) =>
    `insert into hot select i, 'row ' || i, i::numeric, to_jsonb(i) from generate_series(${
      id(r)
    }, ${id(r)}) i on conflict do nothing`,
  (r) => `insert into hot (id, name) values (${id(r)}, 'may fail')`,
  (r) =>
    `update hot set name = ${label(r)}, size = ${r.below(1e6)} where id = ${
      id(r)
    }`,
  (r) => `update hot set size = size + 1 where id = ${id(r)}`,
  (r) =>
    `update hot set note = jsonb_build_object('at', clock_timestamp(), 'w', ${
      word(r)
    }) where id % 3 = ${r.below(3)}`,
  (r) => `update hot set secret = ${word(r)}`,
  (r) => `update hot set name = name where id < ${id(r)}`,
  (r) =>
    `update hot set id = id + ${KEYS} where id = ${
      id(r)
    } and not exists (select from hot o where o.id = hot.id + ${KEYS})`,
  (r) => `update hot set id = ${id(r)} where id = ${id(r)}`,
  (r) => `delete from hot where id in (${id(r)}, ${id(r)}, ${KEYS + id(r)})`,
  (r) => `update hot set id = ${id(r)} where name = 'mine'`,
  (r) =>
    `insert into hot (id, name) values (${
      id(r)
    }, 'mine') on conflict do nothing`,
  `delete from hot where id > ${KEYS}`,
  (r) => `delete from hot where id % 4 = ${r.below(4)} and name <> 'mine'`,
  (r) =>
    `merge into hot t using (select i, ${
      word(r)
    } as name from generate_series(${id(r)}, ${id(r)}) i) s on t.id = s.i
     when matched and s.i % 3 = 0 then delete
     when matched then update set name = s.name
     when not matched then insert (id, name) values (s.i, s.name)`,
  (r) =>
    `with gone as (delete from hot where id = ${
      id(r)
    } returning *), moved as (insert into pair select id, 'moved', name from gone on conflict (a, b) do update set note = excluded.note returning a)
     update hot set size = 7 where id in (select a + 1 from moved)`,
  (r) =>
    `with u as (update hot set size = 1 where id = ${
      id(r)
    } returning id) insert into hot (id, name) select id + 1, 'cte' from u on conflict (id) do update set size = hot.size + 2`,
  (r) =>
    `merge into hot t using (select i from generate_series(${id(r)}, ${
      id(r)
    }) i) s on t.id = s.i
     when matched then update set size = coalesce(t.size, 0) + 1
     when not matched by source and t.id % 5 = 0 then delete
     when not matched then insert (id, name) values (s.i, 'merged') returning merge_action(), t.id`,
  (r) =>
    `do $$ declare c cursor for select * from hot where id < ${
      id(r)
    } order by id for update; begin for h in c loop
       if h.id % 2 = 0 then update hot set name = 'cursor' where current of c; else delete from hot where current of c; end if;
     end loop; end $$`,
  (r) =>
    `do $$ begin for i in 1..${2 + r.below(6)} loop
       begin insert into hot (id, name) values (i, 'tried'); update hot set name = ${
      word(r)
    } where id = i + 1; if i % 2 = 0 then raise 'undone'; end if;
       exception when others then null; end; end loop; end $$`,
  (r) =>
    `update hot set name = 'taken' where id in (select id from hot order by id limit 3 offset ${
      r.below(4)
    } for update skip locked)`,
  (r) => `insert into some_hot values (${id(r)}, ${word(r)})`,
  (r) => `update some_hot set name = ${word(r)} where id > ${id(r)}`,
  (r) => `delete from some_hot where id = ${id(r)}`,
  `update hot set name = p.label from parent p where p.id = hot.id`,
  `delete from hot using pair p where p.a = hot.id`,
  (r) => `truncate hot${r.chance(0.3) ? ", pair" : ""}`,
  (r) =>
    `lock table hot in ${
      r.pick(["share row exclusive", "access exclusive", "exclusive"])
    } mode`,
];

/** What is a transaction by itself, or large. */
export const ALONE: readonly Make[] = [
  (r) =>
    `do $$ begin for i in 1..4 loop
       insert into hot (id, name) values (${
      id(r)
    } + i, 'loop') on conflict (id) do update set name = excluded.name;
       delete from swap where id = ${id(r)} + i;
       if i % 3 = 0 then rollback; else commit; end if; end loop; end $$`,
  (r) =>
    `insert into pair select 900, 'many' || i, ${
      word(r)
    } from generate_series(1, 1300) i on conflict do nothing`,
  `update pair set note = note || '+' where a = 900`,
  `delete from pair where a = 900`,
  (r) =>
    `insert into fat select i, repeat(${
      word(r)
    }, 4000) from generate_series(1, 60) i on conflict do nothing`,
];

const PAIR: readonly Make[] = [
  (r) =>
    `insert into pair values (${id(r)}, ${word(r)}, ${
      label(r)
    }) on conflict (a, b) do update set note = excluded.note`,
  (r) =>
    `insert into pair select ${id(r)}, 'k' || i, null from generate_series(1, ${
      1 + r.below(12)
    }) i on conflict do nothing`,
  (r) => `update pair set note = ${label(r)} where a = ${id(r)}`,
  (r) => `update pair set b = b || 'x' where a = ${id(r)} and length(b) < 5`,
  (r) => `update pair set a = ${id(r)} where a = ${id(r)} and b = 'k1'`,
  (r) => `delete from pair where a = ${id(r)} or b = ${word(r)}`,
  `truncate pair`,
];

const FAMILY: readonly Make[] = [
  (r) =>
    `insert into parent values (${id(r)}, ${
      label(r)
    }) on conflict (id) do update set label = excluded.label`,
  (r) =>
    `insert into child values (${id(r)}, ${id(r)}, ${
      label(r)
    }) on conflict (id) do update set parent = excluded.parent`,
  (r) =>
    `insert into toy (id, child, label) values (${id(r)}, ${id(r)}, ${
      label(r)
    }) on conflict do nothing`,
  `insert into parent select i, 'p' from generate_series(1, ${KEYS}) i on conflict do nothing;
     insert into child select i, 1 + i % 7, 'c' from generate_series(1, ${KEYS}) i on conflict do nothing;
     insert into toy select i, 1 + i % 5, 't' from generate_series(1, ${KEYS}) i on conflict do nothing`,
  (r) => `update child set label = ${label(r)} where parent = ${id(r)}`,
  (r) => `update child set label = 'refused' where id = ${id(r)}`,
  (r) => `delete from parent where id = ${id(r)}`,
  (r) => `delete from child where id = ${id(r)}`,
  (r) => `update parent set id = ${id(r)} where id = ${id(r)}`,
  (r) => `update parent set id = id + 100 where id between 4 and ${id(r)}`,
  (r) => `update child set id = ${id(r)} where id = ${id(r)}`,
  (r) =>
    `update family set label = ${word(r)}, parent_label = ${
      word(r)
    } where id < ${id(r)}`,
  (r) =>
    `insert into tag values (${id(r)}, ${
      id(r)
    }) on conflict (id) do update set parent = excluded.parent`,
  (r) => `delete from tag where id = ${id(r)}`,
  `delete from tag`,
  `truncate parent cascade`,
  `truncate toy`,
];

const SWAP: readonly Make[] = [
  (r) =>
    `insert into swap select i, 's' || i from generate_series(${id(r)}, ${
      id(r)
    }) i where not exists (select from swap s where s.id = i)`,
  (r) => {
    const [a, b] = [id(r), id(r)];
    return `update swap set id = case id when ${a} then ${b} else ${a} end where id in (${a}, ${b})`;
  },
  `update swap set id = id + 1 where id < 100`,
  `update swap set id = id - 1 where id > 0`,
  (r) => `update swap set label = ${label(r)} where id = ${id(r)}`,
  () => `update swap set id = ${KEYS + 1} - id where id <= ${KEYS}`,
  (r) => `delete from swap where id >= ${id(r)}`,
];

const TREE: readonly Make[] = [
  (r) =>
    `insert into tree select i, nullif(i / 2, 0), 0 from generate_series(1, ${
      id(r)
    }) i on conflict do nothing`,
  (r) =>
    `insert into tree values (${id(r)}, ${
      id(r)
    }, 0) on conflict (id) do update set above = excluded.above`,
  (r) => `delete from tree where id = ${id(r)}`,
  (r) => `update tree set id = id + 40 where id = ${id(r)}`,
  `update tree set id = id - 40 where id > 40`,
  (r) => `update tree set n = n + 1 where id <= ${id(r)}`,
  (r) =>
    `with a as (delete from tree where id = ${
      id(r)
    } returning id) update tree set n = 9 where id in (select id + 1 from a)`,
];

const FAT: readonly Make[] = [
  (r) => `update fat set body = repeat(${word(r)}, 4000) where id = ${id(r)}`,
  (r) => `update fat set id = id + 60 where id = ${id(r)}`,
  (r) => `delete from fat where id = ${id(r)} or id > 60`,
  (r) =>
    `insert into fat values (${id(r)}, 'thin') on conflict (id) do nothing`,
];

const TOUCH: readonly Make[] = [
  (r) =>
    `insert into touch values (${id(r)}, ${
      r.below(100)
    }) on conflict (id) do update set n = excluded.n`,
  (r) => `update touch set n = n + 1 where id <= ${id(r)}`,
  (r) => `update touch set n = ${r.below(100)} where id = ${id(r)}`,
  (r) => `update touch set n = 5 where id = ${id(r)} returning bump(id)`,
  (r) => `insert into touch (id, n) values (${id(r)}, 1) returning bump(id)`,
  (r) => `update touch set id = id + 30 where id = ${id(r)}`,
  (r) => `delete from touch where id = ${id(r)} or id > 30`,
  (r) => `select bump(${id(r)})`,
];

const KEPT: readonly Make[] = [
  (r) =>
    `insert into kept (id, label) values (${id(r)}, ${
      r.pick(["'skip'", word(r), label(r)])
    }) on conflict (id) do update set label = excluded.label, deleted = false`,
  (r) => `update kept set label = ${word(r)} where id % 4 = ${r.below(4)}`,
  (r) => `delete from kept where id = ${id(r)}`,
  `delete from kept`,
];

const PART: readonly Make[] = [
  (r) =>
    `insert into part values (${region(r)}, ${id(r)}, ${
      label(r)
    }) on conflict (region, id) do update set label = excluded.label`,
  (r) =>
    `insert into part_b_low values ('b', ${
      r.below(14)
    }, 'leaf') on conflict do nothing`,
  (r) =>
    `insert into part select ${region(r)}, i, 'many' from generate_series(${
      id(r)
    }, ${id(r)}) i on conflict do nothing`,
  (r) => `update part set region = ${region(r)} where id = ${id(r)}`,
  (r) =>
    `update part set region = ${region(r)} where region = ${
      region(r)
    } and id % 3 = 0`,
  (r) => `update part set id = id + 9 where region = 'b' and id = ${id(r)}`,
  (r) => `update part_a set label = ${label(r)} where id < ${id(r)}`,
  (r) =>
    `merge into part t using (select i from generate_series(${id(r)}, ${
      id(r)
    }) i) s on t.id = s.i and t.region <> 'd'
     when matched and s.i % 4 = 0 then delete
     when matched then update set region = 'd', label = 'merged'
     when not matched then insert values ('a', s.i, 'new')`,
  (r) => `delete from part where id = ${id(r)}`,
  (r) => `delete from part_rest where id < ${id(r)}`,
  (r) => `truncate part${r.pick(["", "_a", "_b", "_b_high", "_rest"])}`,
];

const OTHERS: readonly Make[] = [
  (r) =>
    `insert into strict values (${id(r)}, ${strict(r)}, ${
      loose(r)
    }) on conflict (id) do update set n = excluded.n, b = excluded.b`,
  (r) => `update strict set n = ${strict(r)} where id = ${id(r)}`,
  (r) => `update strict set b = 'true', n = round(n) where id < ${id(r)}`,
  (r) => `update strict set id = id + 30 where id = ${id(r)}`,
  (r) => `delete from strict where id = ${id(r)} or id > 30`,
  `truncate strict`,
  (r) =>
    `insert into other values (${word(r)}, ${id(r)}, ${
      label(r)
    }) on conflict do nothing`,
  (r) => `update other set code = ${word(r)} where id = ${id(r)}`,
  (r) => `update other set id = ${id(r)} where id = ${id(r)}`,
  (r) => `update other set id = ${id(r)} where code = 'mine'`,
  (r) => `insert into other values ('mine', ${id(r)}) on conflict do nothing`,
  (r) => `delete from other where id = ${id(r)}`,
  (r) =>
    `insert into ${ODD} values (${r.below(6)}, ${label(r)}, ${
      label(r)
    }) on conflict (${ODD_KEY}) do update set rowid = excluded.rowid`,
  (r) =>
    `update ${ODD} set "Ünï 'x'" = ${label(r)} where "select" = ${r.below(6)}`,
  (r) => `update ${ODD} set rowid = ${label(r)}`,
  (r) => `delete from ${ODD} where "select" = ${r.below(6)}`,
  (r) =>
    `insert into folded values (${fold(r)}, ${
      fold(r)
    }) on conflict (id) do update set id = excluded.id, label = excluded.label`,
  (r) => `update folded set id = upper(id) where id = ${fold(r)}`,
  `update folded set label = upper(label)`,
  (r) => `delete from folded where id = ${fold(r)}`,
  (r) =>
    `insert into made (id, a) values (${id(r)}, ${
      r.below(100)
    }) on conflict (id) do update set a = excluded.a`,
  (r) => `update made set a = a + 1 where id < ${id(r)}`,
  `insert into made (a) values (1), (2), (null)`,
  (r) => `delete from made where id >= ${id(r)}`,
];

const EDGES: readonly Make[] = [
  (r) => {
    const cells = edgeCells(r);
    return `insert into edges (id, ${
      cells.map(([name]) => name).join(", ")
    }) values (${edge(r)}, ${cells.map(([, sql]) => sql).join(", ")})
      on conflict (id) do update set (${
      cells.map(([name]) => name).join(", ")
    }) = row(${cells.map(([name]) => `excluded.${name}`).join(", ")})`;
  },
  (r) => {
    const some = edgeCells(r).filter(() => r.chance(0.3));
    if (some.length === 0) return `delete from edges where id = ${edge(r)}`;
    return `update edges set ${
      some.map(([name, sql]) => `${name} = ${sql}`).join(", ")
    } where id = ${edge(r)}`;
  },
  (r) => `update edges set id = ${edge(r)} where id = ${edge(r)}`,
  (r) =>
    `insert into edges select gen_random_uuid(), t, i, num, f, yes, at, day, span, raw, js, jb, jt, list, comp, padded, mood, reach, host
     from edges where id = ${edge(r)} and (select count(*) < 60 from edges)`,
  (r) => `delete from edges where id <= ${edge(r)}`,
];

function region(random: Random): string {
  return random.pick(["'a'", "'b'", "'b'", "'c'", "'d'"]);
}

function strict(random: Random): string {
  return random.pick(["1", "2.00", "0.5", "null", "-9", "1e19", "'NaN'"]);
}

function loose(random: Random): string {
  return random.pick(["'true'", "'f'", "'0'", "null", "'maybe'"]);
}

function fold(random: Random): string {
  return literal(random.pick(["a", "A", "b", "B", "é", "É", "Straße", "x y"]));
}

/** How often each group is written to. */
export const GROUPS: readonly (readonly [
  weight: number,
  makes: readonly Make[],
])[] = [
  [6, HOT],
  [2, PAIR],
  [4, FAMILY],
  [2, TREE],
  [1, FAT],
  [3, SWAP],
  [2, TOUCH],
  [2, KEPT],
  [3, PART],
  [4, OTHERS],
  [3, EDGES],
];
