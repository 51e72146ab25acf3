/**
 * Ring 0. JSON as `deno fmt` leaves it, so that schema.json is formatted as it is written.
 *
 * @module
 */

/** Columns of a line. */
const WIDTH = 80;
const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff01-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/gu;

/**
 * Writes a value as `deno fmt` leaves it: objects a property a line, a list on
 * one line where it fits.
 *
 * @param value The value, of objects, lists and texts.
 * @returns The text, with a line end.
 */
export function formatJson(value: unknown): string {
  return formatAt(value, { indent: "", column: 0 }) + "\n";
}

/** A value where it stands: after `column` characters of a line so indented. */
function formatAt(
  value: unknown,
  { indent, column }: { indent: string; column: number },
): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const inner = indent + "  ";
  if (Array.isArray(value)) {
    const line = formatLine(value);
    if (column + widthOf(line) + 1 <= WIDTH) return line;
    const items = value.map((item) =>
      inner + formatAt(item, { indent: inner, column: inner.length })
    );
    return `[\n${items.join(",\n")}\n${indent}]`;
  }
  const fields = Object.entries(value).map(([name, field]) => {
    const before = `${inner}${JSON.stringify(name)}: `;
    return before + formatAt(field, { indent: inner, column: widthOf(before) });
  });
  return fields.length === 0 ? "{}" : `{\n${fields.join(",\n")}\n${indent}}`;
}

/** How many characters of a terminal it takes: two where they are wide. */
function widthOf(text: string): number {
  return text.replace(WIDE, "xx").length;
}

function formatLine(value: unknown): string {
  return Array.isArray(value)
    ? `[${value.map(formatLine).join(", ")}]`
    : JSON.stringify(value);
}
