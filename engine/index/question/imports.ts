/** The lines of a file that say what it uses of others: a prompt keeps them where the rest of its beginning is cut off. */

const importLine =
  /^\s*(?:import\b|from\s+\S+\s+import\b|(?:pub(?:\([^)]*\))?\s+)?(?:(?:use|using)\s+[\w:]|mod\s+\w+\s*;)|extern crate\b|#\s*include\b|package\s+\w|namespace\s+[\w\\.]+;|require(?:_relative|_once)?\b|include_once\b|(?:const|let|var|local)\s+[^=]{1,200}=\s*(?:await\s+)?(?:require|import)\s*\(|@import\b|@use\b|library\()/;

/** Also those between the brackets that an import opens. */
export function importsIn(text: string): string[] {
  let open = false;
  return text.split('\n').filter((line) => {
    const inside = open || importLine.test(line);
    if (inside) open = open ? !/[)}]/.test(line) : /[({][^)}]*$/.test(line);
    return inside && line.length < 300;
  });
}
