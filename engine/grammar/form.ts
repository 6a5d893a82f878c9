/** What a grammar is made of: literal texts, JSON by a schema, and texts up to a tag. */

export type Part =
  /** A framing token in it is its name after a carriage return, which no other text of a grammar holds. */
  | { readonly kind: 'literal'; readonly text: string }
  | { readonly kind: 'json'; readonly schema: unknown }
  /** Any text that does not hold the tag. */
  | { readonly kind: 'without'; readonly tag: string };

/** Alternatives, each one part after the other. */
export type Form = readonly (readonly Part[])[];
