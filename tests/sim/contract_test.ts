/** The source and the libSQL in memory do what the contract says. */

import { makeModel } from "../contract/model.ts";
import { testReplica } from "../contract/replica.ts";
import { testSource } from "../contract/source.ts";
import { databaseOf, MemoryDatabase } from "./libsql.ts";

testSource("model", () => Promise.resolve(makeModel()));

testReplica("SQLite", () => {
  const database = new MemoryDatabase();
  const run = (statements: Parameters<MemoryDatabase["batch"]>[0]) =>
    new Promise<ReturnType<MemoryDatabase["batch"]>>((resolve) =>
      resolve(database.batch(statements))
    );
  return Promise.resolve({
    database: databaseOf(run),
    read: (sql) => Promise.resolve(database.read(sql)),
    close: () => Promise.resolve(database.close()),
  });
});
