// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lexMarkdown } from '../../../extension/answerMarkup.ts';
import { offeredLink, renderBlocks } from '../../../media/markdown.ts';
import { StreamingMarkdown } from '../../../media/stream.ts';
import { payloads } from './payloads.ts';

let opened: string[] = [];
beforeEach(() => {
  opened = [];
  document.body.replaceChildren();
  Reflect.deleteProperty(globalThis, 'pwned');
});
afterEach(() => {
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

const harmlessClasses = /^(block|link|image|task|hljs.*|language-.*|[a-z]+_+)$/;

/** Expects nothing that runs, loads, navigates, submits or imitates the page's own parts. */
function inspect(root: HTMLElement): void {
  const bad: string[] = [];
  for (const element of root.querySelectorAll('*')) {
    if (!harmless.has(element.tagName)) bad.push(element.tagName);
    for (const { name, value } of element.attributes) {
      const web = name !== 'title' || /^https?:\/\//.test(value);
      const role = name !== 'role' || value === 'link';
      if (!harmlessAttributes.has(name) || !web || !role) bad.push(`${name}="${value}"`);
    }
    for (const name of element.classList) if (!harmlessClasses.test(name)) bad.push(`class ${name}`);
  }
  expect(bad).toEqual([]);
}

describe('hostile markdown', () => {
  it('has at least 200 payloads', () => {
    expect(payloads.length).toBeGreaterThanOrEqual(200);
  });

  it.each(payloads.map((payload, index) => [index, payload]))('is harmless: %i', (_, payload) => {
    const element = render(payload);
    inspect(element);
    for (const target of element.querySelectorAll('*')) {
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

describe('markdown made to take long', () => {
  const nested = ['> ', '- ', '1. ', '**', '*a ', '[a](', '![', '<b>', '~~a', '> - ', '_a**b', '`a ', '| a '];
  it.each(nested)('is shown with any nesting: %j', (mark) => {
    const began = performance.now();
    const text = `before\n\n${mark.repeat(20_000 / mark.length)}end\n\nafter`;
    const shown = render(text).textContent ?? '';
    expect(shown.startsWith('before')).toBe(true);
    expect(shown.trimEnd().endsWith('after')).toBe(true);
    expect(performance.now() - began).toBeLessThan(4_000);
  });

  it.each([
    ['typescript', 'a'.repeat(20_000)],
    ['java', 'a'.repeat(9_999)],
    ['csharp', `${'a'.repeat(30)}\n`.repeat(600)],
    ['ini', 'a.'.repeat(9_000)],
    ['scala', '\n'.repeat(20_000)],
  ])('is not highlighted if that would take long: %s', (language, code) => {
    const began = performance.now();
    const shown = render(`\`\`\`${language}\n${code}\n\`\`\``);
    expect(shown.textContent?.trim()).toBe(code.trim());
    expect(performance.now() - began).toBeLessThan(4_000);
  });
});
