/** Hearth's models as VS Code sees them, on the scripted engine. */
import { describe, expect, it } from 'vitest';
import { InstalledModels, informationOf, ModelProvider } from '../../../extension/languageModel/provider.ts';
import { Thinking } from '../../../extension/thinking.ts';
import { clientOf, hostOf, log, MemoryMemento, untilState } from './support.ts';
import { CancellationTokenSource, LanguageModelDataPart, LanguageModelTextPart } from './vscode.ts';

function open(env: Record<string, string> = {}) {
  const client = clientOf(env);
  const engine = hostOf(client);
  const memory = new MemoryMemento();
  const installed = new InstalledModels(memory, engine, log);
  const provider = new ModelProvider(engine, installed, new Thinking(memory, engine));
  const source = new CancellationTokenSource();
  const parts: unknown[] = [];
  const model = informationOf({
    ...{ id: 'small', name: 'Model small', family: 'llama', description: '' },
    ...{ contextTokens: 2048, toolCalling: true },
  });
  const ask = (text: string, id = model.id) => {
    const messages = [{ role: 1, content: [new LanguageModelTextPart(text)], name: undefined }];
    const progress = { report: (part: unknown) => parts.push(part) };
    return provider.provideLanguageModelChatResponse(
      { ...model, id },
      messages,
      { toolMode: 1 },
      progress,
      source.token,
    );
  };
  return { client, installed, memory, parts, ask, source };
}

describe('the models that VS Code lists', () => {
  it('are those on this computer, with the measured context once loaded', async () => {
    const { client, installed } = open();
    const lengths = async () => (await installed.list(false)).map(({ id, contextTokens }) => [id, contextTokens]);
    expect(await lengths()).toEqual([['small', 8192]]);
    const changed = new Promise<void>((resolve) => installed.onChange(resolve));
    await client.ready();
    await changed;
    expect(await lengths()).toEqual([['small', 2048]]);
  });

  it('are cached, so listing starts no engine', async () => {
    const first = open();
    await first.installed.list(false);
    const later = clientOf();
    const again = new InstalledModels(first.memory, hostOf(later), log);
    expect((await again.list(false)).map(({ id }) => id)).toEqual(['small']);
    expect(later.pid).toBeUndefined();
  });

  it('split their context between prompt and answer', () => {
    const long = { id: 'm', name: 'M', family: 'qwen3', description: '', contextTokens: 131_072, toolCalling: true };
    expect(informationOf(long)).toMatchObject({ maxInputTokens: 114_688, maxOutputTokens: 16_384 });
    expect(informationOf({ ...long, contextTokens: 4096 })).toMatchObject({
      maxInputTokens: 3072,
      maxOutputTokens: 1024,
    });
  });

  it("are offered to agents only if an agent's prompt fits", () => {
    const model = { id: 'm', name: 'M', family: 'qwen3', description: '', toolCalling: true };
    const offered = (contextTokens: number) => informationOf({ ...model, contextTokens }).capabilities.toolCalling;
    expect([8192, 16_384, 32_768].map(offered)).toEqual([false, false, true]);
    expect(informationOf({ ...model, contextTokens: 32_768, toolCalling: false }).capabilities.toolCalling).toBe(false);
  });
});

describe('an answer through VS Code', () => {
  it('streams its text and ends with its usage', async () => {
    const { ask, parts } = open();
    await ask('Hello?');
    const texts = parts.filter((part) => part instanceof LanguageModelTextPart).map(({ value }) => value);
    expect(texts).toEqual(['One ', 'two ', 'three.']);
    const [usage] = parts.filter((part) => part instanceof LanguageModelDataPart);
    expect(usage?.mimeType).toBe('usage');
    expect(JSON.parse(new TextDecoder().decode(usage?.data))).toMatchObject({
      prompt_tokens: 20,
      completion_tokens: 3,
    });
  });

  it('ends when VS Code cancels it', async () => {
    const { ask, parts, client, source } = open();
    const asked = ask('SLOW');
    await untilState(client, 'ready');
    source.cancel();
    await asked;
    expect(parts.length).toBeLessThan(4);
  });

  it('fails with an error type that VS Code knows', async () => {
    await expect(open().ask('Hello?', 'thinker')).rejects.toMatchObject({ code: 'NotFound' });
    const failure: unknown = await open()
      .ask('OVERFLOW')
      .catch((error: unknown) => error);
    expect(failure).toMatchObject({
      message: 'The question does not fit. Raise hearth.contextTokens, or choose a model with a longer context.',
    });
    expect(failure).not.toHaveProperty('stack');
  });
});
