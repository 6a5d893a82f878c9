// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { lexMarkdown } from '../../../extension/answerMarkup.ts';
import { offeredLink, renderBlocks } from '../../../media/markdown.ts';
import { StreamingMarkdown } from '../../../media/stream.ts';
import { payloads } from './payloads.ts';

let opened: string[] = [];
beforeEach(() => {
  // Time stands still, so every formula is typeset at once and inspected.
  vi.useFakeTimers({ toFake: ['performance', 'setTimeout'] });
  opened = [];
  document.body.replaceChildren();
  Reflect.deleteProperty(globalThis, 'pwned');
});
afterEach(() => {
  vi.runAllTimers();
  vi.useRealTimers();
  expect(Reflect.get(globalThis, 'pwned')).toBeUndefined();
});

const options = { open: false, imageLabel: 'image', onLink: (href: string) => opened.push(href) };

function render(markdown: string): HTMLElement {
  const element = document.createElement('div');
  document.body.replaceChildren(element);
  element.append(renderBlocks(lexMarkdown(markdown), options));
  return element;
}

function stream(pieces: Iterable<string>, watch = false): HTMLElement {
  const element = document.createElement('div');
  document.body.replaceChildren(element);
  const { imageLabel, onLink } = options;
  const streaming = new StreamingMarkdown(element, { imageLabel, onLink, decorate: () => {} });
  for (const piece of pieces) {
    streaming.append(piece);
    streaming.draw();
    if (watch) inspect(element);
  }
  streaming.finish();
  return element;
}

const harmless = new Set([
  ...['P', 'BR', 'HR', 'H1', 'H2', 'H3', 'H4', 'H5', 'H6', 'BLOCKQUOTE', 'PRE', 'CODE', 'SPAN', 'EM', 'STRONG', 'DEL'],
  ...['UL', 'OL', 'LI', 'TABLE', 'THEAD', 'TBODY', 'TR', 'TH', 'TD', 'DIV'],
]);
const harmlessAttributes = new Set(['class', 'start', 'align', 'role', 'tabindex', 'title']);

const harmlessClasses = /^(block|link|image|task|formula|display|hljs.*|language-.*|[a-z]+_+)$/;
/** KaTeX's output elements: MathML for screen readers, HTML and SVG for display. */
const drawing = /^(span|svg|path|line|math|semantics|annotation|m[a-z]+)$/i;
const drawingAttributes = /^(href|xlink:href|src|srcset|id|name|on\w+|action|data-.*)$/;

/** Expects nothing that runs, loads, navigates, submits or imitates the page's own parts. */
function inspect(root: HTMLElement): void {
  const bad: string[] = [];
  const visit = (element: Element, drawn: boolean): void => {
    const isDrawing = drawn || element.classList.contains('katex') || element.classList.contains('katex-display');
    if (isDrawing) inspectDrawing(element, bad);
    else inspectElement(element, bad);
    for (const child of element.children) visit(child, isDrawing);
  };
  for (const child of root.children) visit(child, false);
  expect(bad).toEqual([]);
}

function inspectDrawing(element: Element, bad: string[]): void {
  if (!drawing.test(element.tagName)) bad.push(element.tagName);
  for (const { name } of element.attributes) if (drawingAttributes.test(name)) bad.push(name);
  if (/url|fixed|expression/.test(element.getAttribute('style') ?? '')) bad.push('style');
}

function inspectElement(element: Element, bad: string[]): void {
  if (!harmless.has(element.tagName)) bad.push(element.tagName);
  for (const { name, value } of element.attributes) {
    const web = name !== 'title' || /^https?:\/\//.test(value);
    const role = name !== 'role' || value === 'link';
    if (!harmlessAttributes.has(name) || !web || !role) bad.push(`${name}="${value}"`);
  }
  for (const name of element.classList) if (!harmlessClasses.test(name)) bad.push(`class ${name}`);
}

/** The clock moves five milliseconds at each read. */
function slowly(): void {
  let ms = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => (ms += 5));
}

describe('hostile markdown', () => {
  it('has at least 200 payloads', () => {
    expect(payloads.length).toBeGreaterThanOrEqual(200);
  });

  it.each(payloads.map((payload, index) => [index, payload]))('is harmless: %i', (_, payload) => {
    const element = render(payload);
    inspect(element);
    const targets = [...element.querySelectorAll('*')].filter((each) => each.parentElement?.closest('.katex') == null);
    for (const target of targets) {
      for (const type of ['click', 'mouseover', 'focus', 'load', 'error', 'toggle', 'pointerenter']) {
        target.dispatchEvent(new Event(type, { bubbles: true }));
      }
    }
    for (const href of opened) expect(href).toMatch(/^https?:\/\//);
  });

  it('is harmless at every stage of streaming', () => {
    for (const payload of payloads) {
      const middle = Math.floor(payload.length / 2);
      inspect(stream([payload.slice(0, middle), payload.slice(middle)], true));
    }
  });

  it('is harmless inside and after other markdown', () => {
    for (const payload of payloads) {
      inspect(render(`Text\n\n- a\n  - ${payload}\n\n\`\`\`\n${payload}\n\`\`\`\n\n**${payload}**`));
    }
  });
});

/** The TeX that KaTeX says it read, which it writes into the MathML for screen readers. */
const formulasOf = (element: HTMLElement) =>
  [...element.querySelectorAll('.formula')].map((formula) => [
    formula.classList.contains('display') ? 'display' : 'inline',
    formula.querySelector('annotation')?.textContent ?? `not read: ${formula.textContent}`,
  ]);

describe('formulas', () => {
  it.each([
    ['Einstein: $E = mc^2$.', [['inline', 'E = mc^2']]],
    [
      String.raw`A sum \(\sum_i x_i\), and \[a \\ b\]`,
      [
        ['inline', String.raw`\sum_i x_i`],
        ['display', String.raw`a \\ b`],
      ],
    ],
    [
      'Before\n$$\n\\frac{1}{2}\n$$\nafter $x$, $y$',
      [
        ['display', '\\frac{1}{2}'],
        ['inline', 'x'],
        ['inline', 'y'],
      ],
    ],
    [
      '- item\n\n  $$a$$\n- $b$',
      [
        ['display', 'a'],
        ['inline', 'b'],
      ],
    ],
    ['**bold $x_1 * y_1$**', [['inline', 'x_1 * y_1']]],
    ['| a |\n|---|\n| $x$ |', [['inline', 'x']]],
  ])('are typeset: %s', (markdown, expected) => {
    expect(formulasOf(render(markdown))).toEqual(expected);
  });

  it.each([
    'It costs $5 and $10.',
    'US$5 or A$7',
    'Set $HOME and $PATH.',
    'PATH=$HOME/bin:$PATH',
    'a$b$c',
    '`$x$` in code',
    '```sh\necho $x $y\n```',
    String.raw`\$x\$`,
    '$ x $',
    '$$',
    String.raw`\(unfinished`,
  ])('are not seen in %s', (markdown) => {
    expect(formulasOf(render(markdown))).toEqual([]);
  });

  it('that begin after a line of spaces begin a paragraph of their own', () => {
    expect(render('Before\n  \n$$unfinished').querySelectorAll('p')).toHaveLength(2);
  });

  it('are typeset in slices between which the page answers, unless the block was rendered anew', () => {
    slowly();
    const markdown = Array.from({ length: 10 }, (_, i) => `$x_${i}$`).join(' ');
    const typeset = (element: HTMLElement) => element.querySelectorAll('.katex').length;
    const replaced = render(markdown);
    const element = render(markdown);
    expect(element.textContent?.trim().startsWith('$x_0$ $x_1$')).toBe(true);
    expect(typeset(replaced)).toBeGreaterThan(0);
    expect(typeset(replaced)).toBeLessThan(10);
    const before = typeset(replaced);
    vi.advanceTimersToNextTimer();
    vi.advanceTimersToNextTimer();
    expect(typeset(element)).toBeLessThan(10);
    vi.runAllTimers();
    expect(formulasOf(element)).toEqual(Array.from({ length: 10 }, (_, i) => ['inline', `x_${i}`]));
    expect(typeset(replaced)).toBe(before);
    vi.restoreAllMocks();
  });

  it('stay as written where KaTeX cannot read them', () => {
    const source = String.raw`A $\frac{1$ and \(\nonsense{x}\).`;
    const element = render(source);
    expect(element.textContent).toBe(`${source}\n`);
    expect(element.querySelector('.katex')).toBeNull();
  });

  it.each([
    ['a thousand cells', String.raw`\begin{matrix}${'&'.repeat(999)}\end{matrix}`],
    ['more than 2,000 characters', 'x+'.repeat(1_100)],
    ['a macro without an end', String.raw`\def\a{\a\a}\a`],
  ])('stay as written with %s', (_, tex) => {
    const { textContent } = render(`$$\n${tex}\n$$`);
    expect(textContent?.trim()).toBe(`$$\n${tex}\n$$`);
  });

  it('keep the text around them, however long the answer', () => {
    const text = 'Word $5 word. '.repeat(2000);
    expect(render(text).textContent?.trim()).toBe(text.trim());
  });
});

describe('markdown of an answer', () => {
  it('has the usual elements', () => {
    const { innerHTML } = render('# Title\n\nA **b** *c* ~~d~~ `e`.\n\n> q\n\n2. two\n3. three\n\n---');
    expect(innerHTML).toContain('<h1>Title</h1>');
    expect(innerHTML).toContain('<p>A <strong>b</strong> <em>c</em> <del>d</del> <code>e</code>.</p>');
    expect(innerHTML).toContain('<ol start="2">');
    expect(innerHTML).toContain('<hr>');
  });

  it('has tables with alignment', () => {
    const cell = render('| a | b |\n|---|--:|\n| 1 | 2 |').querySelector('td:last-child');
    expect([cell?.textContent, cell?.getAttribute('align')]).toEqual(['2', 'right']);
  });

  it('shows task lists as text', () => {
    const items = [...render('- [x] done\n- [ ] open').querySelectorAll('li')].map((item) => item.textContent?.trim());
    expect(items).toEqual(['☑ done', '☐ open']);
  });

  it('shows raw HTML as text', () => {
    expect(render('Use `<b>` or <b>this</b>.').textContent).toContain('Use <b> or <b>this</b>.');
  });

  it('highlights code of a known language and keeps its text', () => {
    const source = 'const a = "<b>&amp;</b>"; // x\n\tif (a < b && c) {}\n';
    const code = render(`\`\`\`ts\n${source}\`\`\``).querySelector('code');
    expect(code?.textContent?.trimEnd()).toBe(source.trimEnd());
    expect(code?.querySelector('.hljs-keyword')?.textContent).toBe('const');
    expect(code?.classList.contains('language-ts')).toBe(true);
  });

  it('does not highlight code of an unknown language', () => {
    const code = render('```brainfuck\n+[>.<]\n```').querySelector('code');
    expect([code?.textContent?.trim(), code?.querySelector('span')]).toEqual(['+[>.<]', null]);
  });

  it('asks the extension to open a link, by mouse and by keyboard', () => {
    const link = render('See [the page](https://ok.example/a?b=c).').querySelector<HTMLElement>('.link');
    expect([link?.textContent, link?.title, link?.getAttribute('role'), link?.tabIndex]).toEqual([
      'the page',
      'https://ok.example/a?b=c',
      'link',
      0,
    ]);
    link?.click();
    link?.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }));
    expect(opened).toEqual(['https://ok.example/a?b=c', 'https://ok.example/a?b=c']);
  });

  it('offers an image as a link and never loads it', () => {
    const element = render('![a cat](https://ok.example/cat.png)');
    expect(element.querySelector('img')).toBeNull();
    expect(element.textContent?.trim()).toBe('[image: a cat]');
    element.querySelector<HTMLElement>('.link')?.click();
    expect(opened).toEqual(['https://ok.example/cat.png']);
  });

  it('offers only http and https links', () => {
    expect(offeredLink('https://ok.example')).toBe('https://ok.example/');
    for (const href of [
      'javascript:1',
      'command:x',
      'file:///x',
      '//x',
      '/x',
      'x',
      'https:x',
      'mailto:a@b.c',
      'https://',
    ]) {
      expect(offeredLink(href), href).toBeUndefined();
    }
  });
});

describe('markdown that is being streamed', () => {
  const document_ = [
    'Intro with **bold**.\n\n',
    '1. one\n2. two\n\n   continued\n\n3. three\n\n',
    '```python\ndef f(x):\n    """Doc."""\n\n    return x\n```\n\n',
    '> quoted\n> twice\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n',
    'Setext heading\n---\n\n- a\n- b\n  - c\n\n\n    indented code\n\nlast *line*, no end',
  ].join('');

  const html = (element: HTMLElement) => [...element.children].map((block) => block.innerHTML).join('');

  it('gives the same DOM as unstreamed text, wherever it is split', () => {
    const whole = html(stream([document_]));
    for (const size of [3, 17]) {
      const pieces = document_.match(new RegExp(`[\\s\\S]{1,${size}}`, 'g')) ?? [];
      expect(html(stream(pieces)), `pieces of ${size}`).toBe(whole);
    }
  });

  it('shows the same as the text received so far', () => {
    const element = document.createElement('div');
    const { imageLabel, onLink } = options;
    const streaming = new StreamingMarkdown(element, { imageLabel, onLink, decorate: () => {} });
    for (let length = 0; length < document_.length; length += 7) {
      streaming.append(document_.slice(length, length + 7));
      streaming.draw();
      const soFar = document_.slice(0, length + 7);
      expect(html(element).trim(), soFar).toBe(html(stream([soFar])).trim());
    }
  });

  it('does not touch complete blocks', () => {
    const element = document.createElement('div');
    const { imageLabel, onLink } = options;
    const streaming = new StreamingMarkdown(element, { imageLabel, onLink, decorate: () => {} });
    streaming.append('First paragraph.\n\nSecond.\n\nThird');
    streaming.draw();
    const first = element.firstElementChild?.firstElementChild;
    streaming.append(' goes on.\n\nFourth');
    streaming.draw();
    expect(element.firstElementChild?.firstElementChild).toBe(first);
    expect(element.children).toHaveLength(3);
  });

  it('resolves references defined below their use', () => {
    const element = stream(['See [the page][1].\n\n', 'More.\n\n', '[1]: https://ok.example/\n']);
    element.querySelector<HTMLElement>('.link')?.click();
    expect(opened).toEqual(['https://ok.example/']);
  });

  it('accepts Windows line ends', () => {
    expect(html(stream(['a\r', '\n\r\nb\r\n']))).toBe(html(stream(['a\n\nb\n'])));
  });

  it('renders a few blocks a frame, however long the answer is', () => {
    let rendered = 0;
    const { imageLabel, onLink } = options;
    const decorate = () => {
      rendered += 1;
    };
    const streaming = new StreamingMarkdown(document.createElement('div'), { imageLabel, onLink, decorate });
    for (let index = 0; index < 30; index++) {
      rendered = 0;
      streaming.append(`Paragraph ${index} with \`code\`.\n\n- item\n\n`);
      streaming.draw();
      expect(rendered).toBeLessThanOrEqual(3);
    }
  });
});

describe('a long complete text', () => {
  const shownIn = (element: HTMLElement) => {
    document.body.replaceChildren(element);
    const { imageLabel, onLink } = options;
    return new StreamingMarkdown(element, { imageLabel, onLink, decorate: () => {} });
  };
  const words = 'word '.repeat(30);
  const long = Array.from({ length: 400 }, (_, i) => `Paragraph ${i} with \`code\`, ${words}.\n\n`).join('');

  it('is shown in slices between which the page answers, as it would be at once', () => {
    const element = document.createElement('div');
    const text = shownIn(element);
    slowly();
    const whenShown = vi.fn();
    text.set(long);
    text.finish(whenShown);
    const first = element.querySelectorAll('p').length;
    expect(first).toBeGreaterThan(40);
    expect(first).toBeLessThan(250);
    vi.advanceTimersToNextTimer();
    expect(element.querySelectorAll('p').length).toBeGreaterThan(first);
    expect(whenShown).not.toHaveBeenCalled();
    vi.runAllTimers();
    expect(whenShown).toHaveBeenCalledOnce();
    expect([...element.children].map(({ innerHTML }) => innerHTML).join('')).toBe(render(long).innerHTML);
    vi.restoreAllMocks();
  });

  it('may be one list', () => {
    const element = document.createElement('div');
    const text = shownIn(element);
    text.append(Array.from({ length: 3000 }, (_, i) => `${i + 1}. item **${i}**\n`).join(''));
    text.draw();
    vi.runAllTimers();
    text.finish();
    vi.runAllTimers();
    expect([...element.querySelectorAll('li')].map(({ textContent }) => textContent?.trim())).toEqual(
      Array.from({ length: 3000 }, (_, i) => `item ${i}`),
    );
    expect([...element.querySelectorAll('ol')].map(({ start }) => start)).toEqual(
      Array.from({ length: 12 }, (_, i) => i * 250 + 1),
    );
  });

  it('is shown no further once it was replaced', () => {
    const element = document.createElement('div');
    const text = shownIn(element);
    slowly();
    text.set(long);
    text.set('Another.');
    vi.runAllTimers();
    expect(element.textContent?.trim()).toBe('Another.');
    vi.restoreAllMocks();
  });

  it('is shown as several lists and tables of 250 items, numbered consecutively', () => {
    const element = document.createElement('div');
    const rows = Array.from({ length: 600 }, (_, i) => `| ${i} | x |`);
    const items = Array.from({ length: 600 }, (_, i) => `${i + 3}. item`);
    shownIn(element).set(`${items.join('\n')}\n\n| a | b |\n|---|---|\n${rows.join('\n')}\n`);
    vi.runAllTimers();
    const lists = [...element.querySelectorAll('ol')];
    expect(lists.map(({ start, children }) => [start, children.length])).toEqual([
      [3, 250],
      [253, 250],
      [503, 100],
    ]);
    const tables = [...element.querySelectorAll('table')];
    expect(tables.map((table) => table.querySelectorAll('tbody tr').length)).toEqual([250, 250, 100]);
    expect(tables.map((table) => table.querySelector('th')?.textContent)).toEqual(['a', 'a', 'a']);
    expect(element.querySelectorAll('tbody td:first-child')[300]?.textContent).toBe('300');
  });
});

describe('a table of several pieces', () => {
  const rows = Array.from({ length: 3_100 }, (_, i) => `| ${i} | x\\|y |`);
  const text = `Before\n\n| a | b |\n|---|--:|\n${rows.join('\n')}\n\nAfter *it*.\n\n|c|\n|-|\n|1|\n`;
  const contentsOf = (element: HTMLElement) => {
    const tables = [...element.querySelectorAll('table')].map((table) => [
      table.querySelector('thead')?.textContent?.replaceAll(/\s/g, ''),
      table.querySelectorAll('tbody tr').length,
    ]);
    const cells = [...element.querySelectorAll('tbody td')].map(({ textContent }) => textContent);
    return { tables, cells, last: element.querySelector('em')?.textContent };
  };
  const expected = {
    tables: [...Array.from({ length: 12 }, () => ['ab', 250]), ['ab', 100], ['c', 1]],
    cells: [...rows.flatMap((_, i) => [String(i), 'x|y']), '1'],
    last: 'it',
  };

  it('has every row once, under its header', () => {
    expect(contentsOf(stream([text]))).toEqual(expected);
  });

  it('has them also when it arrives in pieces', () => {
    expect(contentsOf(stream(text.match(/.{1,3000}/gs) ?? []))).toEqual(expected);
  });
});

describe('markdown crafted to be slow', () => {
  const nested = ['> ', '- ', '1. ', '**', '*a ', '[a](', '![', '<b>', '~~a', '> - ', '_a**b', '`a ', '| a '];
  it.each(nested)('is shown with any nesting: %j', (mark) => {
    const { user } = process.cpuUsage();
    const text = `before\n\n${mark.repeat(20_000 / mark.length)}end\n\nafter`;
    const shown = render(text).textContent ?? '';
    expect(shown.startsWith('before')).toBe(true);
    expect(shown.trimEnd().endsWith('after')).toBe(true);
    expect(process.cpuUsage().user - user).toBeLessThan(4e6);
  });

  it.each([
    ['typescript', 'a'.repeat(20_000)],
    ['java', 'a'.repeat(9_999)],
    ['csharp', `${'a'.repeat(30)}\n`.repeat(600)],
    ['ini', 'a.'.repeat(9_000)],
    ['scala', '\n'.repeat(20_000)],
  ])('is not highlighted if that would take long: %s', (language, code) => {
    const { user } = process.cpuUsage();
    const shown = render(`\`\`\`${language}\n${code}\n\`\`\``);
    expect(shown.textContent?.trim()).toBe(code.trim());
    expect(process.cpuUsage().user - user).toBeLessThan(4e6);
  });
});
