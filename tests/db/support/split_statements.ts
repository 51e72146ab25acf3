/** A script's statements, for what runs them one by one. */

/** A comment, a quoted text or name, a dollar-quoted text, or the end of a statement. */
const PARTS = /--[^\n]*|'(?:[^']|'')*'|"(?:[^"]|"")*"|(\$\w*\$)[\s\S]*?\1|(;)/g;

/** Splits a script into its statements, each a transaction of its own. */
export function splitStatements(script: string): string[] {
  const statements: string[] = [];
  let from = 0;
  for (const { 2: end, index } of script.matchAll(PARTS)) {
    if (end === undefined) continue;
    statements.push(script.slice(from, index + 1));
    from = index + 1;
  }
  statements.push(script.slice(from));
  return statements.filter((text) =>
    text.replaceAll(/--.*/g, "").trim() !== ""
  );
}
