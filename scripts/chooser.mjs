#!/usr/bin/env node
/** The `hearth` of npm: runs the command line of this platform, a package that npm chose among its optional dependencies. */
const name = `hearth-${process.platform}-${process.arch}`;

function commandLine() {
  try {
    return import.meta.resolve(`${name}/dist/cli.mjs`);
  } catch {
    console.error(
      `hearth: ${name} is not installed. Either Hearth is not built for this platform, or npm was told to omit optional packages; then install hearth again with --include=optional.`,
    );
    process.exit(1);
  }
}

await import(commandLine());
