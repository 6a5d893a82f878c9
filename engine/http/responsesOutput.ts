/**
 * Turns a stream into the Responses API's items and events: reasoning, then a message, then function calls. Each item is
 * added, filled and done; events are numbered.
 */
import { randomUUID } from 'node:crypto';
import type OpenAI from 'openai';
import type { Delta } from '../protocol/engineProtocol.ts';

type Event = OpenAI.Responses.ResponseStreamEvent;
type Unnumbered = Event extends infer E ? (E extends Event ? Omit<E, 'sequence_number'> : never) : never;
type Reasoning = OpenAI.Responses.ResponseReasoningItem & {
  readonly content: { type: 'reasoning_text'; text: string }[];
};
type Message = OpenAI.Responses.ResponseOutputMessage & { readonly content: OpenAI.Responses.ResponseOutputText[] };
type Call = OpenAI.Responses.ResponseFunctionToolCall & { id: string };
type Item = Reasoning | Message | Call;

export class ResponseOutput {
  readonly items: Item[] = [];
  readonly #emit: (event: Unnumbered) => void;
  /** The item of each tool call of the answer. */
  #openCall: number | undefined;

  constructor(emit: (event: Unnumbered) => void) {
    this.#emit = emit;
  }

  delta(delta: Delta): void {
    if (delta.kind === 'tool-call') this.#callDelta(delta);
    else if (delta.text !== '') this.#textDelta(delta.kind, delta.text);
  }

  /** Ends the current item. */
  end(): void {
    const item = this.items.at(-1);
    if (item === undefined || item.status !== 'in_progress') return;
    const place = { item_id: item.id ?? '', output_index: this.items.length - 1 };
    item.status = 'completed';
    if (item.type === 'function_call') {
      this.#emit({
        type: 'response.function_call_arguments.done',
        ...place,
        name: item.name,
        arguments: item.arguments,
      });
    } else {
      this.#endText(item, place);
    }
    this.#emit({ type: 'response.output_item.done', output_index: place.output_index, item });
  }

  #endText(item: Reasoning | Message, { item_id, output_index }: { item_id: string; output_index: number }): void {
    const [part] = item.content;
    if (part === undefined) return;
    const place = { item_id, output_index, content_index: 0 };
    if (part.type === 'output_text') {
      this.#emit({ type: 'response.output_text.done', ...place, text: part.text, logprobs: [] });
    } else this.#emit({ type: 'response.reasoning_text.done', ...place, text: part.text });
    this.#emit({ type: 'response.content_part.done', ...place, part });
  }

  #textDelta(kind: 'text' | 'thinking', text: string): void {
    const type = kind === 'text' ? 'message' : 'reasoning';
    let item = this.items.at(-1);
    if (item?.type !== type || item.status !== 'in_progress') item = this.#begin(newItem(type));
    if (item.type === 'function_call') return;
    const [part] = item.content;
    if (part !== undefined) part.text += text;
    const place = { item_id: item.id, output_index: this.items.length - 1, content_index: 0, delta: text };
    if (type === 'reasoning') this.#emit({ type: 'response.reasoning_text.delta', ...place });
    else this.#emit({ type: 'response.output_text.delta', ...place, logprobs: [] });
  }

  #callDelta({ index, id, name, text }: Extract<Delta, { kind: 'tool-call' }>): void {
    let item = this.items.at(-1);
    if (item?.type !== 'function_call' || this.#openCall !== index) {
      item = this.#begin(newCall(id, name));
      this.#openCall = index;
    }
    if (item.type !== 'function_call') return;
    item.arguments += text;
    const place = { item_id: item.id, output_index: this.items.length - 1 };
    this.#emit({ type: 'response.function_call_arguments.delta', ...place, delta: text });
  }

  #begin(item: Item): Item {
    this.end();
    const output_index = this.items.push(item) - 1;
    // A copy, because later text must not change an event that was sent.
    this.#emit({ type: 'response.output_item.added', output_index, item: emptied(item) });
    const [part] = item.type === 'function_call' ? [] : item.content;
    if (part !== undefined) {
      this.#emit({ type: 'response.content_part.added', item_id: item.id, output_index, content_index: 0, part });
    }
    return item;
  }
}

function newItem(type: 'message' | 'reasoning'): Reasoning | Message {
  const status = 'in_progress' as const;
  if (type === 'reasoning') {
    return { type, id: `rs_${randomUUID()}`, summary: [], status, content: [{ type: 'reasoning_text', text: '' }] };
  }
  const content = [{ type: 'output_text' as const, text: '', annotations: [] }];
  return { type, id: `msg_${randomUUID()}`, role: 'assistant', status, content };
}

const newCall = (call_id: string, name: string): Call => ({
  type: 'function_call',
  id: `fc_${randomUUID()}`,
  call_id,
  name,
  arguments: '',
  status: 'in_progress',
});

const emptied = (item: Item): Item => (item.type === 'function_call' ? { ...item } : { ...item, content: [] });
