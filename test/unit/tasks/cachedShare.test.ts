/** Most of a prompt is cached while somebody types: a short recording of `npm run proof:typing`. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { keepOrder, similarStretches } from '../../../extension/completion/similar.ts';
import { limits } from '../../../extension/limits.ts';
import { cachedShare } from '../../../scripts/completion/cachedShare.ts';
import { type FileChange, type Key, typing } from '../../../scripts/completion/typing.ts';
import { byHuggingFace } from '../tokenizer/vocabularies.ts';

const read = (path: string): string => readFileSync(fileURLToPath(new URL(`../../../${path}`, import.meta.url)), 'utf8');
const paths = ['engine/kv/prefixCache.ts', 'engine/kv/prefixTree.ts', 'engine/scheduler/requestQueue.ts'];
const files = paths.map((path) => ({ path, text: read(path) }));
