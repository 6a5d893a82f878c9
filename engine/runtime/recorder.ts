/**
 * Records requests, one JSON line each, so that `hearth replay FILE` can send them again. Off unless `HEARTH_RECORD` names
 * a file, which only its owner can read. Server tokens are never recorded.
 */
import { appendFileSync, writeFileSync } from 'node:fs';
import * as z from 'zod';
import type { EngineRequests } from '../protocol/engineProtocol.ts';
import type { Implementation } from '../protocol/rpc.ts';

/** The load request and the requests that a model answers, in the order of the table. */
export const recordedMethods = ['load', 'complete', 'warm', 'chat', 'generate', 'summarise', 'countTokens'] as const;
export type RecordedMethod = (typeof recordedMethods)[number];

export const recordedRequest = z.object({
  /** Milliseconds since 1970. */
  atMs: z.number(),
  method: z.enum(recordedMethods),
  /** Checked against the method's schema when the request is replayed. */
  params: z.unknown(),
});
export type RecordedRequest = z.infer<typeof recordedRequest>;

/** Wraps an implementation to write each request to `path` before it runs. Replaces an existing file. */
export function recording(
  implementation: Implementation<EngineRequests>,
  path: string,
): Implementation<EngineRequests> {
  writeFileSync(path, '', { mode: 0o600 });
  const record = (method: RecordedMethod, params: unknown): void =>
    appendFileSync(path, `${JSON.stringify({ atMs: Date.now(), method, params } satisfies RecordedRequest)}\n`);
  const recorded = <Name extends RecordedMethod>(name: Name): Implementation<EngineRequests>[Name] => {
    const answer: (params: never, signal: AbortSignal) => unknown = implementation[name];
    return ((params: never, signal: AbortSignal) => {
      record(name, params);
      return answer(params, signal);
    }) as Implementation<EngineRequests>[Name];
  };
  return {
    ...implementation,
    load: recorded('load'),
    complete: recorded('complete'),
    warm: recorded('warm'),
    chat: recorded('chat'),
    generate: recorded('generate'),
    summarise: recorded('summarise'),
    countTokens: recorded('countTokens'),
  };
}
