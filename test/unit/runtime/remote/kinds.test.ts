/** Responses as real servers send them, from a scripted server: how they are parsed, or the error message. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { completeParams } from '../../../../engine/protocol/engineProtocol.ts';
import { askAt, type Script, type Scripted, sse, startScriptedServer, stream } from './scripted.ts';

let server: Scripted;
beforeAll(async () => {
  server = await startScriptedServer();
});
afterAll(() => server.close());

const host = () => `127.0.0.1:${server.port}`;
async function answerTo(script: Script) {
  server.chat = script;
  const { chat, deltas } = await askAt(`http://${host()}/v1`);
  return { answer: chat(), deltas };
}
const answerOf = async (script: Script) => (await answerTo(script)).answer;
const delta = (fields: object, more: object = {}) => JSON.stringify({ choices: [{ delta: fields, ...more }] });
const text = (content: unknown) => delta({ content });
const finish = (finish_reason: string) => delta({}, { finish_reason });
const page = { 'content-type': 'text/html' };

describe('a response that is no answer', () => {
  it.each<[string, Script, string]>([
    [
      'without an end',
      stream(sse(text('One'))),
      'closed the connection before the answer was complete. The text received so far is kept; ask again.',
    ],
    [
      'cut within a piece',
      stream(`${sse(text('One'))}data: {"choi`),
      'closed the connection before the answer was complete.',
    ],
    [
      'whose connection breaks',
      (_, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream', 'content-length': '9999' });
        response.write(sse(text('One')), () => setTimeout(() => response.destroy(), 50));
      },
      'closed the connection before the answer was complete.',
    ],
    ['a web page', stream('<!doctype html><p>Sign in</p>', page), 'sent a web page'],
    ['a web page under another name', stream('<html><body>Hi</body></html>'), 'sent a web page'],
    ['empty', stream(''), 'sent an empty answer; ask again.'],
    ['one document', stream('{"choices":[{"message":{"content":"Hi"}}]}'), 'answered in one piece instead of a stream'],
    ['some text', stream('Hello there'), "sent something that is not OpenAI's API. Check the address"],
    ['an error as a document', stream('{"error":{"message":"No GPU."}}'), 'answered: No GPU.'],
    ['a bare error line', stream('error: {"code":500,"message":"Slot gone."}\n\n'), 'answered: Slot gone.'],
    ['a bare error line of words', stream(`${sse(text('One'))}error: out of slots`), 'answered: out of slots.'],
    ['an error within', stream(sse(text('One'), '{"error":{"message":"Died."}}')), 'answered: Died.'],
    ['an error of words within', stream(sse('{"error":"Died"}')), 'answered: Died.'],
    ['an event of the kind error', stream('event: error\ndata: {"message":"Died"}\n\n'), 'answered: Died.'],
    ["vLLM's object error", stream(sse('{"object":"error","message":"Died"}')), 'answered: Died.'],
    ['withheld by a filter', stream(sse(text('One'), finish('content_filter'))), 'withheld the rest of the answer'],
    [
      'a call without a name',
      stream(sse(delta({ tool_calls: [{ index: 0 }] }), '[DONE]')),
      'a tool call without a name',
    ],
    ['not JSON', stream(sse('nonsense', '[DONE]')), "a chunk that does not follow OpenAI's API"],
    ['one endless line', stream(`data: ${'x'.repeat(9_000_000)}`), 'sent more than the maximum size of an answer'],
  ])('%s is an error that says so', async (_, script, sentence) => {
    const failure: unknown = await await answerOf(script).catch((error: unknown) => error);
    expect(String(failure)).toContain(`${host()} `);
    expect(String(failure)).toContain(sentence);
  });

  it('from a proxy is reported by its status, without control characters', async () => {
    const refused =
      (body: string): Script =>
      (_, response) =>
        void response.writeHead(418, page).end(body);
    await expect(answerOf(refused('<html>teapot</html>'))).rejects.toThrow('answered: 418 (a web page).');
    await expect(answerOf(refused('a\u001b[31m\nb'))).rejects.toThrow('answered: 418 a [31m b.');
  });

  it('keeps what was streamed before the cut', async () => {
    const { answer, deltas } = await answerTo(stream(sse(text('One'))));
    await expect(answer).rejects.toThrow('closed the connection');
    expect(deltas.map(({ text: said }) => said)).toEqual(['One']);
  });
});

describe('a completion', () => {
  const ask = async (script: Script) => {
    server.completions = script;
    const { engine } = await askAt(`http://${host()}/v1`);
    return engine.complete(completeParams.parse({ prefix: 'a = ', suffix: '', whole: true }));
  };
  it('is cut off or complete by the same rules as an answer', async () => {
    const piece = '{"choices":[{"text":"1;"}]}';
    await expect(ask(stream(sse(piece)))).rejects.toThrow('closed the connection before the answer was complete.');
    expect(await ask(stream(sse('{"choices":null}', piece, '[DONE]')))).toMatchObject({ text: '1;' });
    await expect(ask(stream('<html>', page))).rejects.toThrow('sent a web page');
  });
});

describe('an answer in odd pieces', () => {
  it.each<[string, string[], string, string]>([
    [
      'null choices and deltas',
      ['{"choices":null}', '{}', '{"choices":[]}', '{"choices":[{"delta":null}]}', text('Hi')],
      'Hi',
      '',
    ],
    [
      'a missing delta',
      ['{"choices":[{"finish_reason":null}]}', text('Hi'), '{"choices":[{"finish_reason":"stop"}]}'],
      'Hi',
      '',
    ],
    ['content as parts', [text([{ type: 'text', text: 'H' }, 'i'])], 'Hi', ''],
    [
      'thinking as parts',
      [text([{ type: 'thinking', thinking: [{ type: 'text', text: 'Hm' }] }]), text('Hi')],
      'Hi',
      'Hm',
    ],
    ['tags of thinking', [text('<thi'), text('nk>\nHm'), text('</think>\n\nHi')], 'Hi', 'Hm'],
    ['tags that are talked about', [text('Use <think>x</think>')], 'Use <think>x</think>', ''],
    ['both words for thinking', [delta({ reasoning_content: '', reasoning: 'Hm' }), text('Hi')], 'Hi', 'Hm'],
    ['a whole message', ['{"choices":[{"message":{"content":"Hi"}}]}'], 'Hi', ''],
    [
      'a message that repeats',
      [text('Hi'), '{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}'],
      'Hi',
      '',
    ],
    [
      'partial usage',
      [text('Hi'), '{"choices":[],"usage":{"total_tokens":3}}', '{"usage":{"prompt_tokens":null}}'],
      'Hi',
      '',
    ],
  ])('%s', async (_, pieces, said, thinking) => {
    expect(await answerOf(stream(sse(...pieces, '[DONE]')))).toMatchObject({ text: said, thinking, finish: 'stop' });
  });

  it('ends with a reason or with [DONE]; either is an end', async () => {
    expect(await answerOf(stream(sse(text('Hi'), finish('stop'))))).toMatchObject({ finish: 'stop' });
    expect(await answerOf(stream(sse(text('Hi'), finish('model_length'))))).toMatchObject({ finish: 'length' });
    expect(await answerOf(stream(`data: ${finish('stop')}`))).toMatchObject({ finish: 'stop' });
  });
});

interface Piece {
  index?: number | null;
  id?: string | null;
  name?: string | null;
  args?: unknown;
}
const call = ({ index, id, name, args }: Piece) =>
  delta({ tool_calls: [{ index, id, function: { name, arguments: args } }] });

describe('tool calls', () => {
  const twice = [
    { name: 'f', arguments: '{"a":1}' },
    { name: 'f', arguments: '{"a":2}' },
  ];
  it.each<[string, Piece[], object[]]>([
    [
      'as they should be',
      [
        { index: 0, id: 'a', name: 'f', args: '' },
        { index: 0, args: '{"a"' },
        { index: 0, args: ':1}' },
        { index: 1, id: 'b', name: 'f', args: '{"a":2}' },
      ],
      twice,
    ],
    [
      'without index',
      [{ id: 'a', name: 'f', args: '{"a"' }, { args: ':1}' }, { id: 'b', name: 'f', args: '{"a":2}' }],
      twice,
    ],
    [
      'without index and id',
      [
        { name: 'f', args: '{"a":1}' },
        { name: 'f', args: '{"a":2}' },
      ],
      twice,
    ],
    [
      'all with index 0',
      [
        { index: 0, id: 'a', name: 'f', args: '' },
        { index: 0, args: '{"a":1}' },
        { index: 0, id: 'b', name: 'f', args: '' },
        { index: 0, args: '{"a":2}' },
      ],
      twice,
    ],
    [
      'all with index 0 and no id',
      [
        { index: 0, name: 'f', args: '{"a":1}' },
        { index: 0, name: 'f', args: '{"a":2}' },
      ],
      twice,
    ],
    [
      'all with one id',
      [
        { index: 0, id: 'a', name: 'f', args: '{"a":1}' },
        { index: 1, id: 'a', name: 'f', args: '{"a":2}' },
      ],
      twice,
    ],
    ['with arguments as an object', [{ index: 0, id: 'a', name: 'f', args: { a: 1 } }], twice.slice(0, 1)],
    [
      'with a late name',
      [
        { index: 0, id: 'a', args: '' },
        { index: 0, name: 'f', args: '{"a":1}' },
      ],
      twice.slice(0, 1),
    ],
    [
      'with a repeated name',
      [
        { index: 0, id: 'a', name: 'f', args: '{"a"' },
        { index: 0, id: 'a', name: 'f', args: ':1}' },
        { index: 0, name: 'f', args: '' },
      ],
      twice.slice(0, 1),
    ],
    [
      'with another id in every piece',
      [
        { index: 0, id: 'a', name: 'f', args: '{"a"' },
        { index: 0, id: 'b', name: null, args: ':1}' },
      ],
      twice.slice(0, 1),
    ],
    ['that begin with index 1', [{ index: 1, id: 'a', name: 'f', args: '{"a":1}' }], twice.slice(0, 1)],
    ['without arguments', [{ index: 0, id: 'a', name: 'f', args: null }], [{ name: 'f', arguments: '{}' }]],
  ])('%s', async (_, pieces, calls) => {
    const { answer, deltas } = await answerTo(stream(sse(...pieces.map(call), finish('stop'))));
    const { toolCalls, finish: ended } = await answer;
    expect(ended).toBe('tool-calls');
    expect(toolCalls).toMatchObject(calls);
    expect(new Set(toolCalls.map(({ id }) => id)).size).toBe(calls.length);
    // What was told while it streamed is the same.
    toolCalls.forEach(({ id, name, arguments: args }, index) => {
      const told = deltas.filter((piece) => piece.kind === 'tool-call' && piece.index === index);
      expect(told.at(-1)).toMatchObject({ id, name });
      expect(told.map((piece) => piece.text).join('') || '{}').toBe(args);
    });
  });
});
