/** Loads a decoder without the engine, for commands that work on token ids. */

import { open, readFile, rename, rm } from 'node:fs/promises';
import { z } from 'zod';
import type { Decoder } from '../backend/backend.ts';
import { defaultModelId } from '../catalogue/catalogue.ts';
import { openStore } from '../catalogue/store.ts';
import { HearthError, invalidInput, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import { openModel } from '../model/open.ts';
import { describeModel } from '../model/spec/describe.ts';
import { decoderFor } from '../runtime/loadedModel.ts';
import type { Command, Values } from './command.ts';
import { json } from './session.ts';
import { ProgressLine, type Terminal } from './terminal.ts';

export interface OpenDecoder {
  /** The argument as the user gave it. */
  readonly model: string;
  readonly decoder: Decoder;
  /** Weight bytes read to decode one token. */
  readonly weightBytesPerToken: number;
  readonly notes: readonly string[];
  /** Size of all tensors. */
  readonly fileBytes: number;
  readonly loadMs: number;
}

export async function withDecoder<Result>(
  values: Values,
  terminal: Terminal,
  contextTokens: number | undefined,
  run: (open: OpenDecoder) => Promise<Result>,
): Promise<Result> {
  const store = openStore();
  const progress = new ProgressLine(terminal);
  const start = performance.now();
  const name = values.text('model') ?? defaultModelId;
  const model = await openModel(await store.resolve(name));
  try {
    const { decoder, notes } = await decoderFor(model, {
      backend: values.backend(),
      contextTokens: contextOf(values, contextTokens),
      threads: values.count('threads'),
      cachePrecision: values.cachePrecision(),
      storeDirectory: store.directory,
      onProgress: ({ doneBytes, totalBytes }) => progress.show('Loading', doneBytes, totalBytes, 'bytes'),
      signal: terminal.signal,
    });
    progress.end();
    const loadMs = performance.now() - start;
    const weightBytesPerToken = describeModel(model).activeWeightBytes;
    const fileBytes = [...model.file.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    try {
      const measured = { weightBytesPerToken, fileBytes, loadMs };
      return await run({ model: name, decoder, notes: [...notes, ...decoder.notes], ...measured });
    } finally {
      await decoder.dispose();
    }
  } finally {
    progress.end();
    await model.file.close();
  }
}

/** @param least what the command needs; absent: as a load without a wish. */
function contextOf(values: Values, least: number | undefined): number | undefined {
  const asked = values.number('context', { least: least ?? 16, integer: true });
  return asked ?? (least === undefined ? undefined : Math.max(16, least));
}

const tokenIds = z.array(z.number().int().min(0)).min(1).max(limits.cli.ids);
const idsFile = z.union([tokenIds, z.object({ input_ids: tokenIds }).transform((file) => file.input_ids)]);

export const logits: Command = {
  name: 'logits',
  usage: '--ids FILE --out FILE',
  summary: 'Writes teacher-forced logits of every position: [tokens, vocabulary] little-endian float32.',
  options: [
    { name: 'ids', value: 'FILE', help: 'JSON array of token ids, or an object with input_ids' },
    { name: 'out', value: 'FILE', help: 'output file' },
  ],
  async run(values, terminal) {
    values.none();
    const out = values.required('out');
    const ids = await readIds(values.required('ids'));
    await withDecoder(values, terminal, ids.length, async ({ decoder, notes }) => {
      const partial = `${out}.part`;
      const file = await open(partial, 'w');
      try {
        const sequence = decoder.createSequence();
        for (let start = 0; start < ids.length; start += decoder.maxTokensPerRun) {
          throwIfAborted(terminal.signal);
          const tokens = ids.slice(start, start + decoder.maxTokensPerRun);
          const [rows] = await decoder.run([{ sequence, tokens, logits: 'all' }]);
          if (rows) await file.writeFile(littleEndian(rows));
        }
        await file.close();
        await rename(partial, out);
      } catch (error) {
        await file.close();
        await rm(partial, { force: true });
        throw error;
      }
      const shape = [ids.length, decoder.spec.vocabularySize];
      if (values.switch('json')) json(terminal, { out, shape, backend: decoder.backend, notes });
      else terminal.err(`${out}: [${shape.join(', ')}] float32 by '${decoder.backend}'\n`);
    });
  },
};

async function readIds(path: string): Promise<number[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new HearthError('not-found', `Could not read ${path}.`, { cause: error });
  });
  try {
    return idsFile.parse(JSON.parse(text));
  } catch (error) {
    throw invalidInput(
      `${path} is not a JSON array of token ids${error instanceof SyntaxError ? '' : ' (at least one, each 0 or more)'}.`,
    );
  }
}

/** Converts to little-endian bytes on any machine. */
function littleEndian(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array(values.byteLength);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < values.length; i++) view.setFloat32(4 * i, values[i] ?? 0, true);
  return bytes;
}
