/**
 * Ring 0. What JSON can say.
 *
 * @module
 */

/** A value that JSON carries unchanged. */
export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [name: string]: Json };
