interface Labelled {
  readonly label: string;
  readonly path: string;
}

const segments = (path: string, count: number): string => path.split('/').slice(-count).join('/');

/** Adds folders to files of the same name until their labels differ: `a/index.ts:1–9` and `b/index.ts:1–9`. */
export function distinctLabels<T extends Labelled>(items: readonly T[]): T[] {
  const paths = [...new Set(items.map(({ path }) => path))];
  return items.map((item) => {
    const name = segments(item.path, 1);
    // A symbol or a map is not called by its file.
    if (!item.label.startsWith(name)) return item;
    const isShared = (count: number) =>
      paths.some((path) => path !== item.path && segments(path, count) === segments(item.path, count));
    let count = 1;
    while (count < item.path.split('/').length && isShared(count)) count++;
    return { ...item, label: segments(item.path, count) + item.label.slice(name.length) };
  });
}
