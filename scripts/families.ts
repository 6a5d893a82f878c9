/**
 * `node scripts/families.ts [FIGURES …]` writes docs/families.md: how far each family is from its golden logits on each
 * backend, and the messages for files that Hearth can't run. FIGURES are files that golden tests wrote with
 * HEARTH_FIGURES; figures that they lack keep their value and date. A test fails if the messages are outdated.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { HearthError } from '../engine/errors.ts';
import { openModel } from '../engine/model/open.ts';
import { unusableModels } from '../test/unit/model/unusableModels.ts';
import { projectRoot } from './shared/paths.ts';

export const familiesPath = join(projectRoot, 'docs', 'families.md');

const backends = { reference: 'reference', onnx: 'CPU (onnx)', webgpu: 'GPU (webgpu, lavapipe)' };
type Backend = keyof typeof backends;
const isBackend = (name: string): name is Backend => Object.hasOwn(backends, name);

interface Cell {
  readonly deviation: number;
  readonly date: string;
}
/** Figures by golden (`qwen3 GGUF`), then by backend. */
type Figures = Map<string, Partial<Record<Backend, Cell>>>;

const figureLine = z.object({ test: z.string(), golden: z.string(), deviation: z.number() });

/** The worst deviation of all tests of a golden on a backend. */
function addFigures(known: Figures, text: string, date: string): void {
  const measured: Figures = new Map();
  for (const line of text.split('\n').filter(Boolean)) {
    const { success, data } = figureLine.safeParse(JSON.parse(line));
    const backend = success ? / on (\w+)/.exec(data.test)?.[1] : undefined;
    if (!success || backend === undefined || !isBackend(backend)) continue;
    const row = measured.get(data.golden) ?? {};
    const deviation = Math.max(data.deviation, row[backend]?.deviation ?? 0);
    measured.set(data.golden, { ...row, [backend]: { deviation, date } });
  }
  for (const [golden, row] of measured) known.set(golden, { ...known.get(golden), ...row });
}

const cellText = (cell: Cell | undefined): string =>
  cell ? `${cell.deviation.toExponential(1)} (${cell.date})` : 'not measured';

function parseFigures(document: string): Figures {
  const figures: Figures = new Map();
  for (const [, family = '', format = '', ...cells] of document.matchAll(
    /^\| ([\w.-]+) \| (safetensors|GGUF) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/gm,
  )) {
    const row: Partial<Record<Backend, Cell>> = {};
    for (const [index, backend] of Object.keys(backends).entries()) {
      const [, deviation, date] = /^([\d.e-]+) \(([\d-]+)\)$/.exec(cells[index] ?? '') ?? [];
      if (deviation !== undefined && date !== undefined && isBackend(backend)) {
        row[backend] = { deviation: Number(deviation), date };
      }
    }
    figures.set(`${family} ${format}`, row);
  }
  return figures;
}

/** The GPU's figures of the last campaign (docs/proof.md, by scripts/proof-tables.ts). */
function figuresOfProof(proof: string): Figures {
  const date = /^\| lavapipe \| ([\d-]+)/m.exec(proof)?.[1] ?? 'undated';
  const rows = proof.matchAll(/^\| ([\w-]+ (?:safetensors|GGUF)) \| [^|]+ \| [^|]+ \| ([\d.e-]+) \| same \|$/gm);
  return new Map([...rows].map(([, golden = '', worst]) => [golden, { webgpu: { deviation: Number(worst), date } }]));
}

function goldenTable(figures: Figures): string[] {
  const sorted = [...figures].sort(([a], [b]) => (a < b ? -1 : 1));
  const rows = sorted.map(([golden, row]) => {
    const [family = '', format = ''] = golden.split(' ');
    return [family, format, ...(Object.keys(backends) as Backend[]).map((backend) => cellText(row[backend]))];
  });
  const heading = ['family', 'format', ...Object.values(backends)];
  return [heading, heading.map((_, i) => (i < 2 ? '---' : '---:')), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
}

/** Opens each file that Hearth can't run. */
export async function sentenceTable(): Promise<string[]> {
  const rows = ['| file or folder | message |', '| --- | --- |'];
  for (const { kind, write } of unusableModels) {
    const folder = await mkdtemp(join(tmpdir(), 'hearth-families-'));
    try {
      const message = await refusal(await write(folder));
      rows.push(`| ${kind} | ${message.replaceAll(folder, '…').replaceAll('|', '\\|')} |`);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  return rows;
}

async function refusal(path: string): Promise<string> {
  try {
    await (await openModel(path)).file.close();
  } catch (error) {
    if (error instanceof HearthError) return error.message;
    throw error;
  }
  throw new Error(`${path} opened, although it should be refused.`);
}

async function familiesDocument(figures: Figures): Promise<string> {
  return [
    '# Model families, and files that Hearth cannot run',
    '',
    '<!-- made by scripts/families.ts -->',
    '',
    'The largest difference between logits and those of Hugging Face transformers, in standard deviations of the logits, over all golden tests of a tiny',
    'random checkpoint of each family (`test/fixtures/goldens`). Correct float32 arithmetic stays below 1e-4; greedy text is identical everywhere.',
    '',
    ...goldenTable(figures),
    '',
    'Models of GGUF architectures and `model_type`s other than these are refused by name. Qwen2.5-Coder is `qwen2`, Qwen3-Coder `qwen3-moe`,',
    'Qwen3-Coder-Next `qwen3-next`, Qwen3.6 `qwen3.5`, SmolLM2 `llama`, Phi-4-mini `phi3-longrope`,',
    'GLM-4.5 to GLM-4.7 `glm4-moe`, GLM-4.7-Flash `glm4-moe-lite`, MiniMax-M2.1 and M2.5 `minimax-m2`, Devstral Small 2 and Ministral 3 `mistral3`.',
    '`node scripts/templates.ts` renders the published chat templates with tools and reads the calls back.',
    '',
    '## Messages for files that Hearth cannot run',
    '',
    'Each message comes from opening such a file. Paths are shortened.',
    '',
    ...(await sentenceTable()),
    '',
  ].join('\n');
}

if (import.meta.main) {
  const before = await readFile(familiesPath, 'utf8').catch(() => '');
  const figures = figuresOfProof(await readFile(join(projectRoot, 'docs', 'proof.md'), 'utf8'));
  for (const [golden, row] of parseFigures(before)) figures.set(golden, { ...figures.get(golden), ...row });
  const today = new Date().toISOString().slice(0, 10);
  for (const path of process.argv.slice(2)) addFigures(figures, await readFile(path, 'utf8'), today);
  await writeFile(familiesPath, await familiesDocument(figures));
}
