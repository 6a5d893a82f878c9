/** Tool calls out of streamed pieces, whose index, id and name servers leave out, repeat or send late. */
import { z } from 'zod';
import { HearthError } from '../../errors.ts';
import { limits } from '../../limits.ts';
import type { ToolCall } from '../../protocol/engineProtocol.ts';

export const callPiece = z.object({
  index: z.number().nullish().catch(undefined),
  id: z.string().max(limits.remote.nameChars).nullish(),
  function: z
    .object({
      name: z.string().max(limits.remote.nameChars).nullish(),
      // Ollama sends an object.
      arguments: z.union([z.string(), z.record(z.string(), z.unknown())]).nullish(),
    })
    .nullish(),
});
export type CallPiece = z.output<typeof callPiece>;

interface Open {
  readonly index: number | undefined;
  id: string | undefined;
  name: string;
  arguments: string;
  /** Of the arguments, how much was told: none before the name is known. */
  told: number;
}

export interface CallDelta {
  readonly index: number;
  readonly id: string;
  readonly name: string;
  readonly text: string;
}

export class Calls {
  readonly #calls: Open[] = [];

  get isEmpty(): boolean {
    return this.#calls.length === 0;
  }

  take(piece: CallPiece): CallDelta | undefined {
    const name = piece.function?.name ?? '';
    const args = piece.function?.arguments ?? '';
    const text = typeof args === 'string' ? args : JSON.stringify(args);
    const id = piece.id || undefined;
    const index = piece.index ?? undefined;
    const call = this.#continued(index, id, name, text) ?? this.#begin(index, id);
    call.id ??= id;
    // A name comes whole, repeated with every piece, late, or (without a new id) in parts.
    if (name !== '') call.name = call.arguments !== '' || name.startsWith(call.name) ? name : call.name + name;
    call.arguments += text;
    return this.#told(call);
  }

  /** @throws HearthError `unavailable` for a call without a name: nothing can be run for it. */
  result(host: string): ToolCall[] {
    return this.#calls.map((call, position) => {
      if (call.name === '') throw new HearthError('unavailable', `${host} sent a tool call without a name; ask again.`);
      return { id: this.#idOf(call, position), name: call.name, arguments: call.arguments.trim() || '{}' };
    });
  }

  #begin(index: number | undefined, id: string | undefined): Open {
    if (this.#calls.length >= limits.remote.toolCalls) {
      throw new HearthError('unavailable', `More than ${limits.remote.toolCalls} tool calls came in one answer.`);
    }
    const call: Open = { index, id, name: '', arguments: '', told: 0 };
    this.#calls.push(call);
    return call;
  }

  /** The call that a piece goes on with; undefined: it begins one. Index and id may both be missing or always the same. */
  #continued(index: number | undefined, id: string | undefined, name: string, text: string): Open | undefined {
    const sameIndex = (call: Open): boolean => index === undefined || call.index === undefined || call.index === index;
    const byId = id === undefined ? undefined : this.#calls.find((call) => call.id === id && sameIndex(call));
    if (byId) return byId;
    const last = this.#calls.findLast(sameIndex);
    if (last === undefined || name === '') return last;
    const idIsNew = id !== undefined && last.id !== undefined;
    if (last.name === '') return idIsNew ? undefined : last;
    const isOpen = !isWhole(last.arguments);
    const isSame = name === last.name;
    if (idIsNew) return isSame && isOpen && last.arguments !== '' ? last : undefined;
    if (index === undefined) return isSame && isOpen ? last : undefined;
    return isOpen || (isSame && text === '') ? last : undefined;
  }

  #told(call: Open): CallDelta | undefined {
    if (call.name === '') return undefined;
    const text = call.arguments.slice(call.told);
    call.told = call.arguments.length;
    const index = this.#calls.indexOf(call);
    return { index, id: this.#idOf(call, index), name: call.name, text };
  }

  /** One that no other call has: results are told apart by it. */
  #idOf({ id }: Open, position: number): string {
    const isTaken = this.#calls.slice(0, position).some((call) => call.id === id);
    return id === undefined || isTaken ? `call_${position}` : id;
  }
}

function isWhole(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
