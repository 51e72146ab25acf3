/**
 * The lint plugin that keeps the rings and the folders of lib/ apart.
 *
 * A file's ring is what its module comment begins with, "Ring N.". Ring 0 is
 * pure, ring 1 holds adapters, ring 2 the flows, ring 3 the edges. A ring says
 * what a file may import and which globals it may use. A folder is a thing, and
 * imports only folders that stand after it in the list at the end of this file. Both rules are
 * checked here and nowhere else. lib/cli/ and lib/dev/ do not ship: their files
 * need no ring, and no file that ships may import them.
 *
 * @module
 */

import { pathToFileURL } from "node:url";

/** What the plugin needs from outside. */
export interface RingsOptions {
  /** The folder that holds lib/. */
  readonly root: URL;
  /** Reads a file's text; throws when there is none. */
  readonly read: (file: URL) => string;
  /**
   * What ships, top to bottom: a folder of lib/, or a file right below it. Each
   * imports itself and what stands after it.
   */
  readonly folders: readonly string[];
}

/** 0 to 3. */
type Ring = 0 | 1 | 2 | 3;

/** Folders of lib/ that do not ship. */
const LOCAL = ["cli", "dev"];

const HTTP = ["fetch", "Request", "Response"];
/** The globals a ring may not use: the outside, the clock and chance. */
const GLOBALS: Record<Ring, readonly string[]> = {
  0: [
    ...["Deno", ...HTTP, "console", "process", "globalThis", "performance"],
    ...["setTimeout", "setInterval", "queueMicrotask", "WebSocket"],
  ],
  1: [],
  2: ["Deno", ...HTTP, "process", "globalThis"],
  3: [],
};
/** The same for members of globals which are fine otherwise; ring 0 only. */
const MEMBERS = [
  "Date.now",
  "Math.random",
  "crypto.randomUUID",
  "crypto.getRandomValues",
];

/**
 * Finds a file's ring.
 *
 * @param text The file's text.
 * @returns The ring its first comment begins with, if it does.
 */
export function ringOf(text: string): Ring | undefined {
  const digit = /^\s*\/\*\*\s*\*?\s*Ring ([0-3])\. /.exec(text)?.[1];
  return digit === undefined ? undefined : Number(digit) as Ring;
}

/** The folder of a path below lib/, or the name of a file right below it. */
function folderOf(path: string): string {
  return path.split("/")[0]!.replace(/\.ts$/, "");
}

/**
 * Makes the plugin.
 *
 * @param options Where lib/ is, and how its files are read.
 * @returns The plugin, with one rule: `rings/keep-apart`.
 */
export function createRings(options: RingsOptions): Deno.lint.Plugin {
  const lib = new URL("lib/", options.root).href;
  const rank = (folder: string) => options.folders.indexOf(folder);
  const create = (context: Deno.lint.RuleContext): Deno.lint.LintVisitor => {
    const file = pathToFileURL(context.filename);
    if (!file.href.startsWith(lib) || file.href.endsWith(".d.ts")) return {};
    const folder = folderOf(file.href.slice(lib.length));
    const ships = !LOCAL.includes(folder);
    const ring = ringOf(context.sourceCode.text);
    if (ring === undefined) {
      return ships
        ? {
          Program: (node) =>
            report(
              node,
              "its module comment must begin with its ring: 'Ring 0.' to 'Ring 3.'",
            ),
        }
        : {};
    }
    if (ships && !options.folders.includes(folder)) {
      return {
        Program: (node) =>
          report(
            node,
            `lib/${folder} has no place in the list of folders in .ci/rings.ts`,
          ),
      };
    }
    return { ...importRules(), ...globalRules(ring, report) };

    function report(node: Deno.lint.Node, message: string): void {
      context.report({ node, message });
    }

    function importRules(): Deno.lint.LintVisitor {
      const checkImport = (
        node: Deno.lint.Node,
        specifier: unknown,
        isType: boolean,
      ) => {
        if (typeof specifier !== "string") return;
        const problem = importProblem(specifier, isType);
        if (problem !== undefined) report(node, `ring ${ring} ${problem}`);
      };
      return {
        ImportDeclaration: (node) =>
          checkImport(node, node.source.value, isTypeImport(node)),
        ExportNamedDeclaration: (node) =>
          checkImport(node, node.source?.value, node.exportKind === "type"),
        ExportAllDeclaration: (node) =>
          checkImport(node, node.source.value, node.exportKind === "type"),
        ImportExpression: (node) =>
          checkImport(
            node,
            node.source.type === "Literal" ? node.source.value : "",
            false,
          ),
        TSImportType: (node) =>
          checkImport(
            node,
            node.argument.type === "TSLiteralType" &&
              node.argument.literal.type === "Literal"
              ? node.argument.literal.value
              : "",
            true,
          ),
      };
    }

    /** What is wrong with an import, if anything is. */
    function importProblem(
      specifier: string,
      isType: boolean,
    ): string | undefined {
      if (!/^\.{0,2}\//.test(specifier)) {
        return ring === 1 || ring === 3
          ? undefined
          : `imports no package: '${specifier}'`;
      }
      const other = new URL(specifier, file).href;
      if (!other.startsWith(lib)) {
        return ring === 3
          ? undefined
          : `imports nothing outside lib/: '${specifier}'`;
      }
      const otherFolder = folderOf(other.slice(lib.length));
      if (ships && LOCAL.includes(otherFolder)) {
        return `ships, and imports nothing that does not: '${specifier}'`;
      }
      if (
        ships && otherFolder !== folder &&
        rank(otherFolder) <= rank(folder)
      ) {
        return `stands in ${folder}, which imports nothing of ${otherFolder}: '${specifier}' points upward`;
      }
      if (ring === 3) return undefined;
      const otherRing = ringOf(readOrEmpty(other));
      if (otherRing === 0) return undefined;
      if (ring === 2 && (otherRing === 2 || (otherRing === 1 && isType))) {
        return undefined;
      }
      const what = otherRing === undefined ? "no ring" : `ring ${otherRing}`;
      return ring === 2
        ? `imports rings 0 and 2, and types of ring 1: '${specifier}' is ${what}`
        : `imports ring 0 only: '${specifier}' is ${what}`;
    }
  };

  function readOrEmpty(href: string): string {
    try {
      return options.read(new URL(href));
    } catch {
      return "";
    }
  }

  return { name: "rings", rules: { "keep-apart": { create } } };
}

/** Checks the names that are used without being imported. */
function globalRules(
  ring: Ring,
  report: (node: Deno.lint.Node, message: string) => void,
): Deno.lint.LintVisitor {
  const refuse = (node: Deno.lint.Node, what: string) =>
    report(node, `ring ${ring} does not use ${what}: have it handed in`);
  // A shorthand property is visited twice, as its name and as its value.
  const seen = new Set<number>();
  const rules: Deno.lint.LintVisitor = {
    Identifier: (node) => {
      if (!GLOBALS[ring].includes(node.name) || !isReference(node)) return;
      if (seen.has(node.range[0])) return;
      seen.add(node.range[0]);
      refuse(node, node.name);
    },
  };
  if (ring !== 0) return rules;
  return {
    ...rules,
    MemberExpression: (node) => {
      if (
        node.object.type !== "Identifier" || node.property.type !== "Identifier"
      ) return;
      const name = `${node.object.name}.${node.property.name}`;
      if (!node.computed && MEMBERS.includes(name)) refuse(node, name);
    },
    NewExpression: (node) => {
      if (
        node.callee.type === "Identifier" && node.callee.name === "Date" &&
        node.arguments.length === 0
      ) refuse(node, "the time of day");
    },
    CallExpression: (node) => {
      if (node.callee.type === "Identifier" && node.callee.name === "Date") {
        refuse(node, "the time of day");
      }
    },
  };
}

/** Whether every name an import brings is a type. */
function isTypeImport(node: Deno.lint.ImportDeclaration): boolean {
  return node.importKind === "type" ||
    (node.specifiers.length > 0 &&
      node.specifiers.every((each) =>
        each.type === "ImportSpecifier" && each.importKind === "type"
      ));
}

/** Whether an identifier stands for a value or type, and is no property's name. */
function isReference(node: Deno.lint.Identifier): boolean {
  const parent = node.parent as unknown as Record<string, unknown> & {
    readonly type: string;
  };
  const is = (part: unknown) => {
    const range = (part as { range?: readonly number[] } | undefined)?.range;
    return range?.[0] === node.range[0] && range[1] === node.range[1];
  };
  if (parent.type === "ImportSpecifier" || parent.type === "ExportSpecifier") {
    return false;
  }
  if (parent.type === "TSQualifiedName") return is(parent.left);
  if (parent.type === "MemberExpression") {
    return is(parent.object) || parent.computed === true;
  }
  if ("key" in parent && is(parent.key)) {
    return parent.computed === true || parent.shorthand === true;
  }
  return true;
}

export default createRings({
  root: new URL("..", import.meta.url),
  read: (file) => Deno.readTextFileSync(file),
  folders: [
    ...["worker", "http", "connect", "sync", "status", "config", "postgres"],
    ...["source", "replica", "plan", "chain", "reader", "schema", "log"],
    ...["errors", "bytes", "version"],
  ],
});
