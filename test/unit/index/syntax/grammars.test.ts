import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { projectRoot } from '../../../../scripts/shared/paths.ts';

/** V8's own functions tell which compiler made a WebAssembly function (src/runtime/runtime-test.cc). */
const script = `
  const { Instance, instantiate } = WebAssembly;
  const found = {};
  WebAssembly.Instance = class extends Instance {
    constructor(module, imports) {
      super(module, imports);
      Object.assign(found, this.exports);
    }
  };
  WebAssembly.instantiate = async (...given) => {
    const made = await instantiate(...given);
    Object.assign(found, made.instance.exports);
    return made;
  };
  const { createReader, spareMemory } = await import('./engine/index/syntax/grammars.ts');
  spareMemory();
  (await createReader('css', '')).parser.parse('a { b: c }');
  const compilers = (run) => [%IsTurboFanFunction(run), %IsLiftoffFunction(run)];
  console.log(JSON.stringify({ runtime: compilers(found.ts_parser_parse_wasm), grammar: compilers(found.tree_sitter_css) }));
`;

it('a process that spares memory has an optimised parser, and no optimised grammar', () => {
  const options = ['--allow-natives-syntax', '--input-type=module', '--eval', script];
  const printed = execFileSync(process.execPath, options, { cwd: projectRoot, encoding: 'utf8' });
  expect(JSON.parse(printed)).toEqual({ runtime: [true, false], grammar: [false, true] });
});
