import { open, readFile, rename, rm } from 'node:fs/promises';
import { z } from 'zod';
import { HearthError, invalidInput, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import type { Command } from './command.ts';
import { withDecoder } from './decoder.ts';
import { json } from './session.ts';

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
