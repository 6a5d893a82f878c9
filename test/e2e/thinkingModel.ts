/**
 * The default model with a thinking switch in its chat template, as Qwen3's has one. It was not trained to think, and what
 * it writes there is not useful, but it is a real 100 MB model with a real switch.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { projectRoot } from '../../scripts/shared/paths.ts';

const keyName = 'tokenizer.chat_template';
/** GGUF tensor data is aligned to this. Changing a length by a multiple of it keeps all offsets valid. */
const alignmentBytes = 32;
const assistant = "{{ '<|im_start|>assistant\n' }}";
const thinking = "{% if enable_thinking %}{{ '<think>\n' }}{% endif %}";

export function writeThinkingModel(path: string): void {
  const source = readFileSync(defaultModelPath());
  // A key is followed by its type (4 bytes, 8: string) and the value by its length (8 bytes).
  const lengthAt = source.indexOf(keyName) + keyName.length + 4;
  const start = lengthAt + 8;
  const end = start + Number(source.readBigUInt64LE(lengthAt));
  const template = source.toString('utf8', start, end);
  if (!template.includes(assistant))
    throw new Error('The default model has another chat template than this test expects.');
  const changed = Buffer.from(template.replace(assistant, assistant + thinking));
  const excess = (changed.length - (end - start)) % alignmentBytes;
  const padded = Buffer.concat([changed, Buffer.alloc((alignmentBytes - excess) % alignmentBytes, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  writeFileSync(path, Buffer.concat([source.subarray(0, lengthAt), length, padded, source.subarray(end)]));
}

function defaultModelPath(): string {
  const list = execFileSync(process.execPath, ['dist/cli.mjs', 'models', 'list', '--json'], { cwd: projectRoot });
  const entries = z.array(z.object({ id: z.string(), path: z.string().optional() })).parse(JSON.parse(list.toString()));
  const path = entries.find(({ id }) => id === 'smollm2-135m-instruct')?.path;
  if (path === undefined) throw new Error('The default model is not in the store.');
  return path;
}
