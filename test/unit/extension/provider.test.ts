import { describe, expect, it, vi } from 'vitest';
import type { EngineClient } from '../../../extension/client/client.ts';
import { acceptedCommand, CompletionProvider } from '../../../extension/completion/provider.ts';
import { Acceptance } from '../../../extension/completion/suggestions.ts';
import { clientOf, hostOf, log, MemoryMemento } from './support.ts';
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

/** @param load what `warmUp` does */
async function open(env: Record<string, string> = {}, warm = true, load: (client: EngineClient) => unknown = () => {}) {
  const client = clientOf(env);
  const host = hostOf(client);
  await host.client();
  if (warm) await client.ready();
  let warmUps = 0;
  const nearby = { snippets: async () => [], refresh: async () => {} };
  const provider = new CompletionProvider(host, log, nearby, new Acceptance(new MemoryMemento()), async () => {
    warmUps += 1;
    await load(client);
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
  it("offers the model's text", async () => {
    const { ask } = await open();
    expect(await ask('function one() {\n  ')).toEqual(['return 1;']);
  });

  it('sends one request while the user types along the suggestion', async () => {
    const { ask, requests } = await open();
    await ask('function one() {\n  ');
    expect(await ask('function one() {\n  ret')).toEqual(['urn 1;']);
    expect(await ask('function one() {\n  return')).toEqual([' 1;']);
    expect(requests()).toBe(1);
    await ask('function one() {\n  x = ');
    expect(requests()).toBe(2);
  });

  it('offers nothing if no model can be loaded', async () => {
    const { ask, client, warmUps } = await open({}, false);
    expect(await ask('function one() {\n  ')).toEqual([]);
    expect([warmUps(), client.pid]).toEqual([1, undefined]);
  });

  // VS Code asks once for a place: keys typed while the model was loading would be answered by nothing.
  it('answers keys that were typed while the model was loading', async () => {
    const { ask } = await open({}, false, (client) => client.readyToComplete());
    expect(await ask('function one() {\n  ')).toEqual(['return 1;']);
  });

  it('does not wait for the model when VS Code cancels', async () => {
    const { ask, requests } = await open({}, false, () => new Promise(() => {}));
    const source = new CancellationTokenSource();
    const asked = ask('function one() {\n  ', {}, source.token);
    source.cancel();
    expect(await asked).toEqual([]);
    expect(requests()).toBe(0);
  });

  it('requests no model if there is nothing to complete', async () => {
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

  it.each(['r', 'return'])('continues for keys that agree with what the model writes: %s', async (typed) => {
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

  it('starts over when the model writes something other than what was typed', async () => {
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

  it('cancels the previous request when the text changes', async () => {
    const { ask, client } = await open();
    const first = ask('const SLOW = ');
    await new Promise<void>((resolve) => client.onView(({ running }) => running === 1 && resolve()));
    expect(await ask('const other = ')).toEqual(['return 1;']);
    expect(await first).toEqual([]);
  });

  it('sends no request if the next key comes within the debounce', async () => {
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
  ])('offers nothing if %s', async (_, arrange) => {
    const { ask } = await open();
    arrange();
    expect(await ask('const x = ')).toEqual([]);
  });

  it('offers nothing while paused and in documents that are not source files', async () => {
    const { ask, provider } = await open();
    expect(await ask('const x = ', {}, undefined, document('const x = ', 'log', 'output'))).toEqual([]);
    provider.paused = true;
    expect(await ask('const x = ')).toEqual([]);
  });

  it("extends the suggestion widget's selected item over the same range", async () => {
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

  it('offers several suggestions of any confidence if the user invokes it', async () => {
    const { ask, requests } = await open();
    const invoked = { triggerKind: InlineCompletionTriggerKind.Invoke };
    expect(await ask('const CYCLE = ')).toEqual(['balanced']);
    expect(await ask('const CYCLE = ', invoked)).toEqual(['eager', 'two', 'three']);
    expect(await ask('const CYCLE = t')).toEqual(['wo', 'hree']);
    expect(requests()).toBe(2);
  });

  it('offers nothing after an invalid answer, and continues', async () => {
    const { ask } = await open();
    expect(await ask('const INVALID = ')).toEqual([]);
    expect(await ask('const x = ')).toEqual(['return 1;']);
  });
});

describe('after an acceptance', () => {
  it('is a command of every offered item', async () => {
    const { provider } = await open();
    const items = await provider.provideInlineCompletionItems(
      document('const x = ') as never,
      new Position(0, 10) as never,
      automatic as never,
      new CancellationTokenSource().token as never,
    );
    expect(items).toMatchObject([{ command: { command: acceptedCommand } }]);
  });

  it('computes the next suggestion, which is then offered without another request', async () => {
    const { ask, accept, requests } = await open();
    await accept('const x = ');
    expect(await ask('const x = ')).toEqual(['return 1;']);
    expect(await ask('const x = return')).toEqual([' 1;']);
    expect(requests()).toBe(1);
  });

  it('computes past the end of the line, so the suggestion is there after Enter too', async () => {
    const { ask, accept, requests } = await open();
    await accept('{\n  const LINES = 1');
    expect(await ask('{\n  const LINES = 1')).toEqual([';\n  next();']);
    expect(await ask('{\n  const LINES = 1;\n  ')).toEqual(['next();']);
    expect(requests()).toBe(1);
  });

  it('stays on one line if the setting says so', async () => {
    settings.set('hearth.completion.multiline', 'never');
    const { ask, accept } = await open();
    await accept('{\n  const LINES = 1');
    expect(await ask('{\n  const LINES = 1')).toEqual([';']);
  });

  it('answers a request for the same position meanwhile', async () => {
    const { ask, accept, requests } = await open();
    const ahead = accept('const x = ');
    expect(await ask('const x = ')).toEqual(['return 1;']);
    await ahead;
    expect(requests()).toBe(1);
  });

  it('ends with the next key, even if nothing is offered', async () => {
    const { ask, accept, client } = await open();
    const asked = untilAsked(client);
    const ahead = accept('const SLOW = ');
    await asked;
    expect(await ask('')).toEqual([]);
    await ahead;
    expect(client.view.running).toBe(0);
  });

  it('ends when VS Code cancels the request that waits for it', async () => {
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
  ])('computes nothing if %s', async (_, arrange) => {
    const { provider, accept, requests } = await open();
    arrange(provider);
    await accept('const x = ');
    expect(requests()).toBe(0);
  });
});
