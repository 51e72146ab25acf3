/**
 * A reproduction of a bug that is dropped into this folder imports ./stack.ts.
 *
 * @module
 */

export * from "./support/stack.ts";
