import { describe, expect, it } from 'vitest';
import { parseQuery } from '../../../engine/index/repository/query.ts';
import type { Repository } from '../../../engine/index/repository/repository.ts';
import { folderOf, repositoryOf } from './folder.ts';

const of = async (files: Readonly<Record<string, string>>): Promise<Repository> => repositoryOf(await folderOf(files));
const paths = (repository: Repository, question: string): string[] =>
  repository.search(question, 10).map(({ path }) => path);

describe('a question about a name', () => {
  const files = {
    'src/tank.ts': 'export function fillTank() {\n  return 1;\n}\n',
    'src/plant.ts': "import { fillTank } from './tank.ts';\nexport const start = () => {\n  fillTank();\n};\n",
    'test/tank.test.ts': "it('is full', () => {\n  expect(fillTank()).toBe(1);\n});\n",
  };

  it.each([
    ['Where is fillTank defined?', 'src/tank.ts'],
    ['What calls fillTank?', 'src/plant.ts'],
    ['Which test covers fillTank?', 'test/tank.test.ts'],
  ])('%s', async (question, path) => {
    expect(paths(await of(files), question)[0]).toBe(path);
  });
});

describe('a trace', () => {
  const files = {
    'src/app/main.py': Array.from({ length: 200 }, (_, i) => `def main_${i}():\n    return ${i}\n`).join('\n'),
    'src/app/pump.py': 'def pump():\n    raise ValueError(1)\n',
    'src/app/threading.py': 'x = 1\n',
  };

  it('of Python has the last frame first, and the lines that frames name', async () => {
    const trace = `Traceback (most recent call last):
  File "/usr/lib/python3/threading.py", line 1, in run
  File "/home/u/src/app/main.py", line 301, in main_100
  File "/home/u/src/app/pump.py", line 2, in pump`;
    const [first, second] = (await of(files)).search(trace, 10);
    expect(first?.path).toBe('src/app/pump.py');
    expect(second?.path).toBe('src/app/main.py');
    expect(second && second.firstLine <= 301 && 301 <= second.lastLine).toBe(true);
    expect(second && second.lastLine - second.firstLine).toBeLessThan(30);
  });

  it.each([
    ['at pump (/x/src/app/pump.py:2:3)', 'src/app/pump.py', 2],
    ['src/app/pump.py:2: error', 'src/app/pump.py', 2],
    ['pump.py(2,5): error CS1', 'pump.py', 2],
    ['at a.b.Pump.run(Pump.java:12)', 'Pump.java', 12],
    ['--> src/pump.rs:7:1', 'src/pump.rs', 7],
  ])('names a place: %s', (text, path, line) => {
    const [place] = parseQuery(text).places;
    expect(place?.path.endsWith(path)).toBe(true);
    expect(place?.line).toBe(line);
  });
});

describe('an issue in a form', () => {
  it('is searched for what the user wrote', () => {
    const { text } = parseQuery(
      '### Checklist\n- [x] I searched\n### Description\nThe valve leaks\n### Environment\n- OS: Linux\n- Node: v22.1.0\n',
    );
    expect(text.replaceAll(/\s+/g, ' ').trim()).toBe('### Checklist The valve leaks');
  });

  it('is left alone where it is no form', () => {
    const text = '# Title\n\nVersion: 3 of the valve leaks';
    expect(parseQuery(text).text).toBe(text);
  });
});

describe('the kind of a file', () => {
  const valve = (own: string) => `export const valveOf${own} = "valve valve";\nexport const x${own} = 1;\n`;

  it('puts sources before tests, examples and what has another licence, unless the question asks for them', async () => {
    const repository = await of({
      'a/valve.test.ts': valve('A'),
      'b/examples/valve.ts': valve('B'),
      'deps/pipe/valve.ts': valve('C'),
      'deps/pipe/COPYING': 'Other terms of use.\n',
      LICENSE: 'Terms.\n',
      'z/valve.ts': valve('D'),
    });
    expect(paths(repository, 'valve')[0]).toBe('z/valve.ts');
    expect(paths(repository, 'the tests of the valve')[0]).toBe('a/valve.test.ts');
    expect(paths(repository, 'valve in pipe')[0]).toBe('deps/pipe/valve.ts');
  });
});

describe('what is shown', () => {
  it('is the best lines of a long function, with what encloses them', async () => {
    const body = Array.from({ length: 40 }, (_, i) => (i === 30 ? '  openSluice();' : `  step${i}();`)).join('\n');
    const [hit] = (await of({ 'a.ts': `function run() {\n${body}\n}\n` })).search('sluice', 5);
    expect(hit?.text).toContain('openSluice');
    expect(hit && hit.lastLine - hit.firstLine).toBeLessThan(30);
    expect(hit?.within).toBe('function run() {');
  });

  it('has no builds of the same text', async () => {
    const text = (word: string) => `${word} valve = open(pipe, sluice, tank, pump, gate, lock);\n${word} x = 1;\n`;
    expect(paths(await of({ 'a.cjs': text('var'), 'a.js': text('let'), 'a.ts': text('const') }), 'valve')).toHaveLength(
      1,
    );
  });

  it('is what a message with other values says where it is raised', async () => {
    const repository = await of({
      'a.py': 'def f(n):\n    raise ValueError(f"tank number {n} overflows its basin")\n',
      'b.py': 'tank = number = overflows = basin = 1\nits = tank\n',
    });
    expect(paths(repository, 'ValueError: tank number 17 overflows its basin')[0]).toBe('a.py');
  });

  it('is where a flag is declared and read', async () => {
    const repository = await of({
      'a.ts': "option('--dry-run');\nconst x = 1;\n",
      'b.ts': 'if (options.dryRun) stop();\nconst y = 1;\n',
      'c.ts': 'const run = () => dry();\nconst z = 1;\n',
    });
    expect(paths(repository, 'What does --dry-run do?').slice(0, 2)).toEqual(['a.ts', 'b.ts']);
  });
});
