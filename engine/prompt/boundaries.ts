/** Where a prompt is made of messages. */

/**
 * Lengths at which a message of the prompt ends, ascending; the last is the prompt's own, where the answer begins. What is
 * edited, asked again or written otherwise in a later turn goes its own way from one of them.
 * @param ends ids that end a message.
 */
export function messageBoundaries(ids: readonly number[], ends: ReadonlySet<number>): number[] {
  const boundaries = ids.flatMap((id, i) => (ends.has(id) ? [i + 1] : []));
  return boundaries.at(-1) === ids.length ? boundaries : [...boundaries, ids.length];
}
