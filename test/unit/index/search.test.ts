import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { openDatabase } from '../../../engine/index/repository/database.ts';
import { Layout } from '../../../engine/index/repository/layout.ts';
import { parseQuery } from '../../../engine/index/repository/query.ts';
import type { Repository } from '../../../engine/index/repository/repository.ts';
import { WordIndex } from '../../../engine/index/repository/wordIndex.ts';
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
    expect(text.replaceAll(/\s+/g, ' ').trim()).toBe('The valve leaks');
  });

  it('keeps its title, and asks for tests only if it begins with them', () => {
    const query = parseQuery('# The valve leaks\n- [ ] I searched\n### Steps\nSee the test above.\n');
    expect(query.text).toContain('The valve leaks');
    expect([...query.wants]).toEqual([]);
    expect([...parseQuery('Which tests fill the tank?').wants]).toEqual(['test']);
  });

  it('is unchanged if it is not a form', () => {
    const text = '# Title\n\nVersion: 3 of the valve leaks';
    expect(parseQuery(text).text).toBe(text);
  });
});

describe('the kind of a file', () => {
  const valve = (own: string) => `export const valveOf${own} = "valve valve";\nexport const x${own} = 1;\n`;

  it('ranks sources before tests, examples and files under another licence, unless the question asks for them', async () => {
    const repository = await of({
      'a/valve.test.ts': valve('A'),
      'b/examples/valve.ts': valve('B'),
      'deps/pipe/valve.ts': valve('C'),
      'deps/pipe/COPYING': 'Other terms of use.\n',
      'y/pump.ts': 'export const pump = 1;\n',
      LICENSE: 'Terms.\n',
      'z/valve.ts': valve('D'),
    });
    expect(paths(repository, 'valve')[0]).toBe('z/valve.ts');
    expect(paths(repository, 'the tests of the valve')[0]).toBe('a/valve.test.ts');
    expect(paths(repository, 'valve in pipe')[0]).toBe('deps/pipe/valve.ts');
  });
});

describe('what a folder holds', () => {
  const several = (name: (i: number) => string, text: (i: number) => string, count = 5) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [name(i), text(i)]));
  const function_ = (i: number) => `def run_${i}():\n    return ${i}\n\n\ndef stop_${i}():\n    return ${i}\n`;
  const case_ = (i: number) => `def test_${i}():\n    assert run_${i}()\n`;
  const go = (i: number) => `package a\n\nfunc Run${i}() int {\n\treturn ${i}\n}\n`;
  const goTest = (i: number) => `package a\n\nfunc TestRun${i}(t *testing.T) {\n\tRun${i}()\n}\n`;
  const heading = (i: number) => `## 1.${i}.0 (2024-01-0${i + 1})\n\n- Fixed the valve.\n`;
  const tags = ['de', 'en', 'fr', 'it', 'nl', 'pl', 'sv', 'pt-BR'];
  const short = ['gup', 'ksm', 'api', 'cli', 'map', 'oom', 'vma', 'wb'];
  const row = (i: number) => `  [0x${i.toString(16)}, "name ${i}", ${i}],\n`;

  it.each<[string, Record<string, string>, string, string | undefined]>([
    [
      'tests has their helpers',
      { ...several((i) => `qa/q${i}.py`, case_), 'qa/help.py': function_(9) },
      'qa/help.py',
      'test',
    ],
    [
      'no tests is no folder of tests, whatever its name',
      several((i) => `lib/test/c${i}.py`, function_),
      'lib/test/c1.py',
      undefined,
    ],
    ['few files is known by its name', { 'test/help.py': function_(1) }, 'test/help.py', 'test'],
    [
      'sources beside their tests has sources',
      { ...several((i) => `a/r${i}.go`, go, 4), ...several((i) => `a/r${i}_test.go`, goTest, 4) },
      'a/r1.go',
      undefined,
    ],
    [
      'documents has sources as examples',
      {
        ...several(
          (i) => `book/c${i}.md`,
          () => 'Text.\n',
          9,
        ),
        'book/a.py': function_(1),
      },
      'book/a.py',
      'example',
    ],
    [
      'versions has release notes',
      several(
        (i) => `notes/1.${i}.txt`,
        () => 'Text.\n',
        9,
      ),
      'notes/1.3.txt',
      'changelog',
    ],
    [
      'languages has translations',
      Object.fromEntries(tags.map((tag) => [`i18n/${tag}.ts`, 'export default 1;\n'])),
      'i18n/fr.ts',
      'data',
    ],
    [
      'names that look like tags of languages and are none has sources',
      Object.fromEntries(['up-to-is', 'in-at-it'].map((name) => [`mm/${name}.py`, function_(1)])),
      'mm/up-to-is.py',
      undefined,
    ],
    [
      'short names has sources',
      Object.fromEntries(short.map((name) => [`mm/${name}.py`, function_(1)])),
      'mm/gup.py',
      undefined,
    ],
    [
      'a file of versions and dates is known as one of changes',
      { 'NEWS-OLD.md': Array.from({ length: 6 }, (_, i) => heading(i)).join('\n') },
      'NEWS-OLD.md',
      'changelog',
    ],
    [
      'most sources is its own, whatever its licence file says',
      { LICENSE: 'Terms.\n', 'lib/LICENSE': 'Terms!\n', ...several((i) => `lib/c${i}.py`, function_) },
      'lib/c1.py',
      undefined,
    ],
    [
      'a licence beside others is of a member',
      {
        ...{
          LICENSE: 'All.\n',
          'a/LICENSE': 'One.\n',
          'b/LICENSE': 'One.\n',
          'c/LICENSE': 'One.\n',
          'a/a.py': function_(1),
        },
        ...several((i) => `c${i}.py`, function_),
      },
      'a/a.py',
      undefined,
    ],
    [
      'a generated file is known by what it says',
      { 'a.go': `// Code generated by gen. DO NOT EDIT.\n${go(1)}` },
      'a.go',
      'built',
    ],
    ['build output is known by its name', { 'dist/node/a.js': 'var a = 1;\n' }, 'dist/node/a.js', 'built'],
    ['an editor is its settings', { 'A.sln.DotSettings': '<a/>\n' }, 'A.sln.DotSettings', 'data'],
    ['tools is their settings', { '.tool/a.sh': 'run\n' }, '.tool/a.sh', 'data'],
    [
      'a document has its translation',
      { 'README.md': 'Fill the tank.\n', 'README.pt-br.md': 'Encha o tanque.\n' },
      'README.pt-br.md',
      'data',
    ],
    ['no original has no translation', { 'NOTES.de.md': 'Tank.\n' }, 'NOTES.de.md', 'document'],
    [
      'a table is known by its rows',
      { 'a.ts': `export const t = [\n${Array.from({ length: 90 }, (_, i) => row(i)).join('')}];\n` },
      'a.ts',
      'data',
    ],
    [
      "Rust's unit tests stand in sources",
      { 'a.rs': 'fn a() {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\n' },
      'a.rs',
      undefined,
    ],
  ])('a folder of %s', async (_, files, path, expected) => {
    const folder = await folderOf(files);
    const database = join(await folderOf({}), 'index.db');
    await (await repositoryOf(folder, { database })).close();
    const layout = new Layout(new DatabaseSync(database));
    layout.refresh();
    expect(layout.classOf(path)).toBe(expected);
  });
});

describe('a flow of calls', () => {
  const files = {
    'src/order.ts':
      'export function placeOrder(basket) {\n  const total = sumOf(basket);\n  return chargeCard(total);\n}\n',
    'src/pay.ts': 'export function chargeCard(amount) {\n  return bank.take(amount);\n}\n',
    'src/sum.ts': 'export const sumOf = (list) => {\n  return list.length;\n};\n',
    'src/other.ts': 'export function unrelated() {\n  return 1;\n}\n',
  };

  it('brings the definitions that its first chunks call', async () => {
    const found = paths(await of(files), 'How does placeOrder work?');
    expect(found[0]).toBe('src/order.ts');
    expect(found.slice(1).sort()).toEqual(['src/pay.ts', 'src/sum.ts']);
  });

  it('comes alone if few chunks are requested, or a name has many definitions', async () => {
    expect((await of(files)).search('How does placeOrder work?', 5).map(({ path }) => path)).toEqual(['src/order.ts']);
    const many = Object.fromEntries(['a', 'b', 'c'].map((name) => [`src/${name}.ts`, files['src/pay.ts']]));
    expect(paths(await of({ 'src/order.ts': files['src/order.ts'], ...many }), 'placeOrder')).toEqual(['src/order.ts']);
  });
});

describe('a large index', () => {
  it('ranks a question of many words by those that are rare', async () => {
    const common = Array.from({ length: 30 }, (_, i) => `word${i}`);
    const files = Object.fromEntries(
      Array.from({ length: 20 }, (_, i) => [`f${i}.ts`, `const x${i} = [${common.join(', ')}];\nconst y = 1;\n`]),
    );
    const repository = await of({ ...files, 'rare.ts': `const valve = sluice(${common[0]});\nconst y = 1;\n` });
    expect(paths(repository, `${common.join(' ')} valve sluice`)).toContain('rare.ts');
    expect(paths(repository, `${common.slice(0, 3).join(' ')} valve sluice`)[0]).toBe('rare.ts');
  });

  /** Of chunks, each with these words. */
  async function wordIndexOf(bodies: readonly string[]): Promise<WordIndex> {
    const database = await openDatabase(':memory:');
    const chunk = database.prepare(
      'INSERT INTO chunks (id, file, first_line, last_line, digest) VALUES (?, 1, 1, 1, 0)',
    );
    const terms = database.prepare("INSERT INTO terms (rowid, path, names, body) VALUES (?, '', '', ?)");
    database.exec('BEGIN');
    for (const [at, body] of bodies.entries()) {
      chunk.run(at + 1);
      terms.run(at + 1, body);
    }
    database.exec('COMMIT');
    return new WordIndex(database);
  }

  it('finds more for common words than the chunks that contain all of them', async () => {
    const body = (i: number): string =>
      i < 10 ? 'tank pump gate' : i < 30 ? 'tank pump' : i % 2 ? 'tank gate' : 'pump';
    const words = await wordIndexOf(Array.from({ length: 14_000 }, (_, i) => body(i)));
    const { ranked, left } = words.ranking(words.terms(['tank', 'pump', 'gate']), 25);
    expect(left.map(({ chunks }) => chunks > 5000)).toEqual([true, true, true]);
    expect(ranked).toHaveLength(25);
    expect(ranked.slice(0, 10).map(({ chunk }) => chunk)).toEqual(Array.from({ length: 10 }, (_, i) => i + 1));
  });

  it('does not rank a word as rare if its chunks are in one place', async () => {
    const words = await wordIndexOf(Array.from({ length: 14_000 }, (_, i) => (i < 7000 ? 'tank' : 'valve')));
    expect(words.terms(['valve'])[0]?.chunks).toBeGreaterThan(5000);
    expect(words.ranking(words.terms(['valve']), 5).left).toHaveLength(1);
  });
});

describe('a chunk that is shown', () => {
  it('has the best lines of a long function, and names what encloses them', async () => {
    const body = Array.from({ length: 40 }, (_, i) => (i === 30 ? '  openSluice();' : `  step${i}();`)).join('\n');
    const [hit] = (await of({ 'a.ts': `function run() {\n${body}\n}\n` })).search('sluice', 5);
    expect(hit?.text).toContain('openSluice');
    expect(hit && hit.lastLine - hit.firstLine).toBeLessThan(30);
    expect(hit?.within).toBe('function run() {');
  });

  it('is from the file whose name is in the question, before one that has its words more often', async () => {
    const files = {
      'src/tank.ts': 'export const top = "fill";\n',
      'src/pump.ts': 'export const pump = "tank tank fill fill";\n',
    };
    expect(paths(await of(files), 'fill the tank to the top')[0]).toBe('src/tank.ts');
  });

  it('is never build output, although that contains the sources, nor a changelog', async () => {
    const text = 'export function fillTank() {\n  return pump(tank);\n}\n';
    const repository = await of({
      'dist/browser/a.js': `var tank = fill;\n${text}${text.replaceAll('fillTank', 'fillTankFully')}`,
      'CHANGELOG.md': '## 1.0\n\n- fill the tank by the pump of the browser\n',
      'lib/basin.ts': `// fill the tank\n${text}`,
    });
    expect(paths(repository, 'fill the tank by the pump of the browser')[0]).toBe('lib/basin.ts');
  });

  it('is from a document if links or wording are asked for, and from its translation if a language is named', async () => {
    const repository = await of({
      'README.md': 'Fill the tank at the pump.\n',
      'README.de.md': 'Fill the tank am Pumpenhaus.\n',
      'src/a.ts': 'export const tank = fill(pump);\n',
    });
    expect(paths(repository, 'fill the tank')[0]).toBe('src/a.ts');
    expect(paths(repository, 'improve the wording: fill the tank')[0]).toBe('README.md');
    expect(paths(repository, 'fill the tank in the German README')[0]).toBe('README.de.md');
  });

  it('is from the file that the question names', async () => {
    const files = { 'README.md': 'How to fill it.\n', 'src/valve.ts': 'export const fill = "fill the valve";\n' };
    expect(paths(await of(files), 'fill the valve')[0]).toBe('src/valve.ts');
    expect(paths(await of(files), 'fill the valve in README.md')[0]).toBe('README.md');
  });

  it('is where a long chunk defines a name, not where it uses it most', async () => {
    const uses = Array.from({ length: 24 }, (_, i) => `const a${i} = fillTank(${i});`);
    const definition = [
      'export const fillTank = (x: number) => x;',
      ...Array.from({ length: 20 }, (_, i) => `const b${i} = ${i};`),
    ];
    const [hit] = (await of({ 'a.ts': [...definition, ...uses].join('\n') })).search('Where is fillTank defined?', 5);
    expect(hit?.text).toContain('export const fillTank');
  });

  it('is never a second build of the same text', async () => {
    const text = (word: string) => `${word} valve = open(pipe, sluice, tank, pump, gate, lock);\n${word} x = 1;\n`;
    expect(paths(await of({ 'a.cjs': text('var'), 'a.js': text('let'), 'a.ts': text('const') }), 'valve')).toHaveLength(
      1,
    );
  });

  it('is where a message is raised, though the question has other values in it', async () => {
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
