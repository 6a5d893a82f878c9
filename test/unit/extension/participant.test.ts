/** @hearth in VS Code's own chat, on the scripted engine. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { ChatMessage, ChatResult } from '../../../engine/protocol/engineProtocol.ts';
import { Participant } from '../../../extension/languageModel/participant.ts';
import { Thinking } from '../../../extension/thinking.ts';
import { clientOf, hostOf, log, logged, MemoryMemento } from './support.ts';
import {
  CancellationTokenSource,
  ChatRequestTurn,
  ChatResponseMarkdownPart,
  ChatResponseTurn,
  LanguageModelTextPart,
  lm,
  settings,
} from './vscode.ts';

type Answer = Parameters<Participant['answer']>;

function open() {
  const client = clientOf();
  const engine = hostOf(client);
  const participant = new Participant(engine, new Thinking(new MemoryMemento(), engine), log);
  const said: string[] = [];
  const progress: string[] = [];
  const stream = {
    markdown: (text: string) => void said.push(text),
    progress: (text: string) => void progress.push(text),
  };
  const source = new CancellationTokenSource();
  const ask = (fields: object, history: object[] = []) => {
    const request = {
      ...{ prompt: '', command: undefined, references: [], toolReferences: [] },
      model: { vendor: 'copilot', id: 'other' },
      ...fields,
    };
    return participant.answer(
      request as unknown as Answer[0],
      { history } as unknown as Answer[1],
      stream as unknown as Answer[2],
      source.token as unknown as Answer[3],
    );
  };
  const chat = vi.spyOn(client, 'chat');
  /** The messages of the last request to the engine. */
  const asked = (): ChatMessage[] => chat.mock.lastCall?.[0].messages ?? [];
  return { client, ask, said, progress, source, chat, asked };
}

const file = { id: 'file:a.ts', value: 'const answer = 42;' };

afterEach(() => void lm.tools.splice(0));

describe('@hearth', () => {
  it("answers with Hearth's model whatever model is chosen, and says that it is loading", async () => {
    const { ask, said, progress, client, asked } = open();
    const result = await ask({ prompt: 'Why?' });
    expect(said.join('')).toBe('One two three.');
    expect(progress).toContain('Loading the model');
    expect(client.warmModel?.id).toBe('small');
    expect(asked().at(-1)).toEqual({ role: 'user', content: 'Why?' });
    expect(result.metadata).toEqual({ question: 'Why?', attachments: [], command: undefined });
  });

  it("answers with the chosen model if it is Hearth's", async () => {
    const { ask, client } = open();
    settings.set('hearth.chat.model', 'small');
    await ask({ prompt: 'Why?', model: { vendor: 'hearth', id: '/models/other.gguf' } });
    expect(client.warmModel?.id).toBe('/models/other.gguf');
  });

  it('reads attachments and turns each command into a question', async () => {
    const wanted = {
      explain: 'Explain this code.',
      fix: 'Fix the problems in this code.',
      tests: 'Write unit tests for this code.',
      doc: 'Add documentation comments to this code.',
    };
    for (const [command, words] of Object.entries(wanted)) {
      const { ask, asked } = open();
      await ask({ command, prompt: 'In German.', references: [file] });
      const [question] = asked().slice(-1);
      expect(question?.content).toContain('const answer = 42;');
      expect(question?.content).toContain(words);
      expect(question?.content).toContain('In German.');
    }
  });

  it('asks for a file if a command has none', async () => {
    for (const command of ['explain', 'fix', 'tests', 'doc', 'summarise']) {
      const { ask, chat } = open();
      const result = await ask({ command });
      expect(result.errorDetails?.message).toContain('Open the file');
      expect(chat).not.toHaveBeenCalled();
    }
  });

  it('starts each prompt with exactly the previous one', async () => {
    const { ask, asked } = open();
    const first = await ask({ prompt: 'First?', references: [file] });
    const before = asked();
    const turn = new ChatResponseTurn([new ChatResponseMarkdownPart('Because.')], first);
    await ask({ prompt: 'Second?' }, [new ChatRequestTurn('First?'), turn]);
    expect(asked().slice(0, before.length)).toEqual(before);
    expect(asked().slice(before.length)).toEqual([
      { role: 'assistant', content: 'Because.' },
      { role: 'user', content: 'Second?' },
    ]);
  });

  it("uses VS Code's text for turns of another version", async () => {
    const { ask, asked } = open();
    const turn = new ChatResponseTurn([new ChatResponseMarkdownPart('Because.')], { metadata: { odd: 1 } });
    await ask({ prompt: 'Second?' }, [new ChatRequestTurn('First?'), turn]);
    expect(
      asked()
        .slice(1)
        .map(({ content }) => content),
    ).toEqual(['First?', 'Because.', 'Second?']);
  });

  it('reports a failure in words, and nothing if it was stopped', async () => {
    const failing = open();
    const result = await failing.ask({ prompt: 'OVERFLOW' });
    expect(result.errorDetails?.message).toContain('does not fit');
    expect(logged.join('\n')).toContain('@hearth');
    const stopped = open();
    stopped.chat.mockImplementation(() => {
      stopped.source.cancel();
      return Promise.reject(new Error('late'));
    });
    expect(await stopped.ask({ prompt: 'Why?' })).toEqual({});
  });
});

describe('a tool named in the question', () => {
  const call = { id: 'call_1', name: 'weather', arguments: '{"city":"Paris"}' };
  const statistics = {
    ...{ promptTokens: 1, cachedTokens: 0, generatedTokens: 1 },
    ...{ timeToFirstTokenMs: 1, tokensPerSecond: 1 },
  };
  const calls: ChatResult = {
    ...{ text: '', thinking: '', toolCalls: [call], finish: 'tool-calls', statistics, droppedMessages: 0 },
  };
  const done: ChatResult = { ...calls, text: 'Sunny.', toolCalls: [], finish: 'stop' };
  const named = { prompt: 'Paris?', toolReferences: [{ name: 'weather' }] };
  const able = { vendor: 'hearth', id: '/models/thinker' };

  function offered() {
    lm.tools.push({ name: 'weather', description: 'Tells it.', inputSchema: { type: 'object' }, tags: [] });
    lm.tools.push({ name: 'unnamed', description: '', inputSchema: { type: 'object' }, tags: [] });
    const opened = open();
    opened.chat.mockResolvedValueOnce(calls).mockResolvedValue(done);
    return opened;
  }

  it('is offered alone, must be called first, and its result goes to the model', async () => {
    const { ask, chat, asked } = offered();
    const invoke = vi.spyOn(lm, 'invokeTool').mockResolvedValue({ content: [new LanguageModelTextPart('20 degrees')] });
    await ask({ ...named, model: able });
    const rounds = chat.mock.calls.map(([params]) => ({ tools: params.tools?.length, choice: params.toolChoice }));
    expect(rounds).toEqual([
      { tools: 1, choice: 'required' },
      { tools: 1, choice: 'auto' },
    ]);
    expect(invoke.mock.lastCall?.[0]).toBe('weather');
    expect(invoke.mock.lastCall?.[1]).toMatchObject({ input: { city: 'Paris' } });
    expect(asked().at(-1)).toEqual({ role: 'tool', toolCallId: 'call_1', content: '20 degrees' });
    invoke.mockRestore();
  });

  it('returns its failure as a result, and the model continues', async () => {
    const { ask, asked } = offered();
    await ask({ ...named, model: able });
    expect(asked().at(-1)).toMatchObject({ role: 'tool', content: 'The tool failed: No tool weather.' });
  });

  it("is not run for another tool's call or invalid arguments; the model is told", async () => {
    const schema = {
      type: 'object',
      properties: { city: { type: 'string', maxLength: 20 }, days: { type: 'integer', minimum: 1 } },
      required: ['city'],
      additionalProperties: false,
    };
    // Calls that a hostile file or server may make the model write.
    const hostile: [name: string, args: string, reason: RegExp][] = [
      ['unnamed', '{}', /no tool 'unnamed'.*Its tools are: weather/],
      ['run_in_terminal', '{"command":"rm -rf ~"}', /no tool 'run_in_terminal'/],
      ['__proto__', '{}', /no tool '__proto__'/],
      ['weather ', '{"city":"Paris"}', /no tool 'weather '/],
      ['weather', '{}', /required property 'city'/],
      ['weather', '{"city":5}', /must be string/],
      ['weather', '{"city":"Paris","days":0}', /must be >= 1/],
      ['weather', '{"city":"Paris","command":"rm"}', /must NOT have additional properties/],
      ['weather', '["Paris"]', /no JSON object/],
      ['weather', '{"city":"Paris"', /no JSON object/],
    ];
    for (const [name, args, reason] of hostile) {
      const { ask, chat, asked } = offered();
      lm.tools.splice(0, 1, { name: 'weather', description: '', inputSchema: schema, tags: [] });
      const toolCalls = [{ id: 'call_1', name, arguments: args }];
      chat
        .mockReset()
        .mockResolvedValueOnce({ ...calls, toolCalls })
        .mockResolvedValue(done);
      const invoke = vi.spyOn(lm, 'invokeTool').mockResolvedValue({ content: [new LanguageModelTextPart('run')] });
      await ask({ ...named, model: able });
      expect(invoke).not.toHaveBeenCalled();
      expect(asked().at(-1)).toMatchObject({ role: 'tool', toolCallId: 'call_1' });
      expect(asked().at(-1)?.content).toMatch(/^Nothing was run\. /);
      expect(asked().at(-1)?.content).toMatch(reason);
      invoke.mockRestore();
      lm.tools.splice(0);
    }
  });

  it('is not run if the question names none, whatever the model answers', async () => {
    const { ask, chat } = offered();
    chat.mockReset().mockResolvedValue(calls);
    const invoke = vi.spyOn(lm, 'invokeTool').mockResolvedValue({ content: [] });
    await ask({ prompt: 'Paris?', model: able });
    expect(chat).toHaveBeenCalledTimes(1);
    expect(invoke).not.toHaveBeenCalled();
    invoke.mockRestore();
  });

  it('ends after a limit of rounds, with an answer without calls', async () => {
    const { ask, chat } = offered();
    chat.mockReset().mockResolvedValue(calls);
    await ask({ ...named, model: able });
    expect(chat.mock.calls.length).toBeGreaterThan(2);
    expect(chat.mock.lastCall?.[0].toolChoice).toBe('none');
  });

  it('is left out with a notice if the model cannot call tools', async () => {
    const { ask, chat, progress } = offered();
    chat.mockReset().mockResolvedValue(done);
    await ask(named);
    expect(chat.mock.lastCall?.[0].tools).toEqual([]);
    expect(progress.join()).toContain('cannot call tools');
  });
});
