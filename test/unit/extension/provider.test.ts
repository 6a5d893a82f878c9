import { describe, expect, it, vi } from 'vitest';
import { acceptedCommand, CompletionProvider } from '../../../extension/completion/provider.ts';
import { clientOf, hostOf, log } from './support.ts';
import { CancellationTokenSource, InlineCompletionTriggerKind, Position, Range, settings } from './vscode.ts';

const automatic = { triggerKind: InlineCompletionTriggerKind.Automatic, selectedCompletionInfo: undefined };

function document(text: string, languageId = 'typescript', scheme = 'file') {
  const lines = text.split('\n');
  return {
    languageId,
    lineCount: lines.length,
    lineAt: (line: number) => ({ text: lines[line] ?? '' }),
    uri: { scheme, toString: () => `${scheme}:///a.ts` },
  };
}

const endOf = (text: string): Position =>
  new Position(text.split('\n').length - 1, text.split('\n').at(-1)?.length ?? 0);

async function open(env: Record<string, string> = {}, warm = true) {
  const client = clientOf(env);
  const host = hostOf(client);
  await host.client();
  if (warm) await client.ready();
  let warmUps = 0;
  const provider = new CompletionProvider(host, log, { snippets: async () => [] }, () => {
    warmUps += 1;
  });
  let requests = 0;
  client.onView(({ running }) => {
    if (running === 1) requests += 1;
  });
  const ask = async (
    text: string,
    over: object = {},
    token = new CancellationTokenSource().token,
    doc = document(text),
  ) => {
    const context = { ...automatic, ...over };
    const items = await provider.provideInlineCompletionItems(
      doc as never,
      endOf(text) as never,
      context as never,
      token as never,
    );
    return items.map((item) => item.insertText);
  };
  const accept = (text: string) =>
    provider.computeAhead({ document: document(text), selection: { active: endOf(text) } } as never);
  return { provider, client, ask, accept, requests: () => requests, warmUps: () => warmUps };
}

const untilAsked = (client: { onView(listener: (view: { running: number }) => void): unknown }) =>
  new Promise<void>((resolve) => client.onView(({ running }) => running === 1 && resolve()));

describe('inline completion', () => {
  it('offers what the model says', async () => {
    const { ask } = await open();
    expect(await ask('function one() {\n  ')).toEqual(['return 1;']);
  });

  it('asks once while the user types along the suggestion', async () => {
    const { ask, requests } = await open();
    await ask('function one() {\n  ');
    expect(await ask('function one() {\n  ret')).toEqual(['urn 1;']);
    expect(await ask('function one() {\n  return')).toEqual([' 1;']);
    expect(requests()).toBe(1);
    await ask('function one() {\n  x = ');
    expect(requests()).toBe(2);
  });

  it('waits for no model: it asks for one to be loaded, and is silent', async () => {
    const { ask, client, warmUps } = await open({}, false);
    expect(await ask('function one() {\n  ')).toEqual([]);
    expect([warmUps(), client.pid]).toEqual([1, undefined]);
  });

  it('asks for no model where there is nothing to complete', async () => {
    const { ask, warmUps } = await open({}, false);
    await ask('');
    expect(warmUps()).toBe(0);
  });

  it('is cancelled in the engine when VS Code cancels', async () => {
    const { ask, client } = await open();
    const source = new CancellationTokenSource();
    const asked = ask('const SLOW = ', {}, source.token);
    await new Promise<void>((resolve) => client.onView(({ running }) => running === 1 && resolve()));
    source.cancel();
    expect(await asked).toEqual([]);
    await vi.waitFor(() => expect(client.view.running).toBe(0));
  });

  it.each(['r', 'return'])('goes on for keys that agree with what the model writes: %s', async (typed) => {
    const { ask, requests, client } = await open();
    const source = new CancellationTokenSource();
    const sent = untilAsked(client);
    const first = ask('SPELL = ', {}, source.token);
    await sent;
    // As VS Code does at every key.
    source.cancel();
    expect(await ask(`SPELL = ${typed}`)).toEqual(['return 1;'.slice(typed.length)]);
    expect(await first).toEqual([]);
    expect(requests()).toBe(1);
  });

  it('begins again once the model writes something else than what was typed', async () => {
    const { ask, client } = await open();
    const prefixes: string[] = [];
    const complete = client.complete.bind(client);
    client.complete = (params, ...rest) => {
      prefixes.push(params.prefix);
      return complete(params, ...rest);
    };
    const source = new CancellationTokenSource();
    const sent = untilAsked(client);
    const first = ask('SPELL = ', {}, source.token);
    await sent;
    source.cancel();
    expect(await ask('SPELL = x')).toEqual(['return 1;']);
    expect(await first).toEqual([]);
    expect(prefixes).toEqual(['SPELL = ', 'SPELL = x']);
  });

  it('cancels the last question when the text has changed', async () => {
    const { ask, client } = await open();
    const first = ask('const SLOW = ');
    await new Promise<void>((resolve) => client.onView(({ running }) => running === 1 && resolve()));
    expect(await ask('const other = ')).toEqual(['return 1;']);
    expect(await first).toEqual([]);
  });

  it('does not ask at all when the next key comes within the pause', async () => {
    const { ask, requests } = await open();
    const source = new CancellationTokenSource();
    const asked = ask('const x = ', {}, source.token);
    source.cancel();
    expect(await asked).toEqual([]);
    expect(requests()).toBe(0);
  });

  it.each([
    ['completions are off', () => settings.set('hearth.completion.enabled', false)],
    ['the language is off', () => settings.set('hearth.completion.languages', { typescript: false, '*': true })],
    ['every language that is not named is off', () => settings.set('hearth.completion.languages', { '*': false })],
  ])('is silent where %s', async (_, arrange) => {
    const { ask } = await open();
    arrange();
    expect(await ask('const x = ')).toEqual([]);
  });

  it('is silent while it is paused, and in documents that are no source', async () => {
    const { ask, provider } = await open();
    expect(await ask('const x = ', {}, undefined, document('const x = ', 'log', 'output'))).toEqual([]);
    provider.paused = true;
    expect(await ask('const x = ')).toEqual([]);
  });

  it('extends the item that the suggestion widget has selected, over the same range', async () => {
    const { provider } = await open();
    const range = new Range(new Position(0, 4), new Position(0, 6));
    const context = { ...automatic, selectedCompletionInfo: { range, text: 'compute = ' } };
    const items = await provider.provideInlineCompletionItems(
      document('let co') as never,
      new Position(0, 6) as never,
      context as never,
      new CancellationTokenSource().token as never,
    );
    expect(items).toMatchObject([{ insertText: 'compute = return 1;', range }]);
  });

  it('shows several to cycle through, however sure the model is, once the user asks for them', async () => {
    const { ask, requests } = await open();
    const invoked = { triggerKind: InlineCompletionTriggerKind.Invoke };
    expect(await ask('const CYCLE = ')).toEqual(['balanced']);
    expect(await ask('const CYCLE = ', invoked)).toEqual(['eager', 'two', 'three']);
    expect(await ask('const CYCLE = t')).toEqual(['wo', 'hree']);
    expect(requests()).toBe(2);
  });

  it('is silent and goes on when the engine answers nonsense', async () => {
    const { ask } = await open();
    expect(await ask('const INVALID = ')).toEqual([]);
    expect(await ask('const x = ')).toEqual(['return 1;']);
  });
});

describe('after an acceptance', () => {
  it('is what every offered item runs', async () => {
    const { provider } = await open();
    const items = await provider.provideInlineCompletionItems(
      document('const x = ') as never,
      new Position(0, 10) as never,
      automatic as never,
      new CancellationTokenSource().token as never,
    );
    expect(items).toMatchObject([{ command: { command: acceptedCommand } }]);
  });

  it('computes the next suggestion, which is then offered without asking again', async () => {
    const { ask, accept, requests } = await open();
    await accept('const x = ');
    expect(await ask('const x = ')).toEqual(['return 1;']);
    expect(await ask('const x = return')).toEqual([' 1;']);
    expect(requests()).toBe(1);
  });

  it('computes over the end of the line, so that it is there after Enter too', async () => {
    const { ask, accept, requests } = await open();
    await accept('{\n  const LINES = 1');
    expect(await ask('{\n  const LINES = 1')).toEqual([';\n  next();']);
    expect(await ask('{\n  const LINES = 1;\n  ')).toEqual(['next();']);
    expect(requests()).toBe(1);
  });

  it('keeps to one line where the user wants no more', async () => {
    settings.set('hearth.completion.multiline', 'never');
    const { ask, accept } = await open();
    await accept('{\n  const LINES = 1');
    expect(await ask('{\n  const LINES = 1')).toEqual([';']);
  });

  it('answers the question that comes meanwhile for the same place', async () => {
    const { ask, accept, requests } = await open();
    const ahead = accept('const x = ');
    expect(await ask('const x = ')).toEqual(['return 1;']);
    await ahead;
    expect(requests()).toBe(1);
  });

  it('ends with the next key, even where nothing is offered', async () => {
    const { ask, accept, client } = await open();
    const asked = untilAsked(client);
    const ahead = accept('const SLOW = ');
    await asked;
    expect(await ask('')).toEqual([]);
    await ahead;
    expect(client.view.running).toBe(0);
  });

  it('ends when VS Code no longer wants the answer it waits for', async () => {
    const { ask, accept, client } = await open();
    const source = new CancellationTokenSource();
    const asked = untilAsked(client);
    const ahead = accept('const SLOW = ');
    const joined = ask('const SLOW = ', {}, source.token);
    await asked;
    source.cancel();
    expect(await joined).toEqual([]);
    await ahead;
    expect(client.view.running).toBe(0);
  });

  it.each([
    ['completions are paused', (provider: CompletionProvider) => Object.assign(provider, { paused: true })],
    ['completions are off', () => settings.set('hearth.completion.enabled', false)],
  ])('computes nothing where %s', async (_, arrange) => {
    const { provider, accept, requests } = await open();
    arrange(provider);
    await accept('const x = ');
    expect(requests()).toBe(0);
  });
});
