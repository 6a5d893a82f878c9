/** Loads a decoder without the engine, for commands that work on token ids. */
import type { Decoder } from '../backend/backend.ts';
import { defaultModelId } from '../catalogue/catalogue.ts';
import { openStore } from '../catalogue/store.ts';
import { openModel } from '../model/open.ts';
import { describeModel } from '../model/spec/describe.ts';
import { decoderFor } from '../runtime/loadedModel.ts';
import type { Values } from './command.ts';
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
