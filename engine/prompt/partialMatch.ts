/** Length of the longest end of `text` that begins, but is not all of, one of `patterns`. */
export function partialMatchLength(text: string, patterns: readonly string[]): number {
  const longest = Math.max(0, ...patterns.map((pattern) => pattern.length - 1));
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const end = text.slice(-length);
    if (patterns.some((pattern) => pattern.length > length && pattern.startsWith(end))) return length;
  }
  return 0;
}
