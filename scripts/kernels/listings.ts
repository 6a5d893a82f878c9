/** Parses the compiler output of each driver: registers, spills, and instructions per basic block. */
import { closeSync, openSync, readSync } from 'node:fs';
import type { Compiler } from './cards.ts';

interface Block {
  readonly instructions: string[];
  /** Indices of successor blocks. */
  readonly next: number[];
}

export interface Listing {
  /** 32-bit registers per thread. */
  readonly registers: number;
  /** Registers spilled to memory. */
  readonly spills: number;
  /** Occupancy: warps (subgroups) per core, or per SIMD on AMD. Absent if not reported. */
  readonly warps?: number;
  readonly instructions: number;
  readonly blocks: readonly Block[];
}

/** Reads lines of a file that may exceed the maximum string length. */
function* lines(path: string): Generator<string> {
  const file = openSync(path, 'r');
  const buffer = Buffer.alloc(1 << 20);
  let rest = '';
  try {
    for (let size = readSync(file, buffer); size > 0; size = readSync(file, buffer)) {
      const parts = (rest + buffer.toString('latin1', 0, size)).split('\n');
      rest = parts.pop() ?? '';
      yield* parts;
    }
  } finally {
    closeSync(file);
  }
  yield rest;
}

/** Output between a kernel's marker (compile.ts) and the next, by kernel number. `keep` filters lines. */
function marked(path: string, keep: (line: string) => boolean): Map<number, string[]> {
  const sections = new Map<number, string[]>();
  let section: string[] | undefined;
  for (const line of lines(path)) {
    const mark = /^@@@ (\d+|end)$/.exec(line);
    if (mark) {
      section = mark[1] === 'end' ? undefined : [];
      if (section) sections.set(Number(mark[1]), section);
    } else if (section && keep(line)) section.push(line);
  }
  return sections;
}

/** @param errors stderr of compile.ts's process; `output` is its stdout */
export function listings(compiler: Compiler, errors: string, output: string): Map<number, Listing> {
  if (compiler === 'agx') return agxListings(errors, output);
  const sections = marked(errors, compiler === 'nak' ? lastStage() : () => true);
  const parse = compiler === 'nak' ? nakListing : acoListing;
  return new Map([...sections].map(([id, section]) => [id, parse(section)]));
}

function numberAfter(section: readonly string[], label: string): number {
  const line = section.find((candidate) => candidate.startsWith(`${label}: `));
  return line === undefined ? 0 : Number(line.slice(label.length + 2));
}

/** NAK prints the code after every pass; only the last listing is used. */
function lastStage(): (line: string) => boolean {
  let wanted = false;
  return (line) => {
    if (line.startsWith('NAK IR')) wanted = line.includes('calc_instr_deps');
    else if (line.startsWith('Stage: ')) wanted = true;
    else if (line.startsWith('Encoded shader')) wanted = false;
    return wanted;
  };
}

function nakListing(section: readonly string[]): Listing {
  const blocks: Block[] = [];
  for (const line of section) {
    const end = /^\} -> \[(.*)\]/.exec(line);
    const block = blocks.at(-1);
    if (/^block(\.u)? \d+ /.test(line)) blocks.push({ instructions: [], next: [] });
    else if (end) block?.next.push(...(end[1] ?? '').split(',').filter(Boolean).map(Number));
    else if (/\/\/ delay=/.test(line)) block?.instructions.push(line.replace(/\/\/.*/, '').trim());
  }
  return {
    registers: numberAfter(section, 'Num GPRs'),
    spills: numberAfter(section, 'Spills to mem') + numberAfter(section, 'Fills from mem'),
    warps: numberAfter(section, 'Max warps/SM'),
    instructions: numberAfter(section, 'Instruction count'),
    blocks,
  };
}

/** LLVM disassembly: labelled blocks, which fall through to the next unless they end with a jump. */
function acoListing(section: readonly string[]): Listing {
  const labels = new Map<string, number>();
  const blocks: Block[] = [];
  for (const line of section) {
    const label = /^(BB\d+):/.exec(line);
    const instruction = /^\t(.*?)\s*;/.exec(line);
    if (label) {
      labels.set(label[1] ?? '', blocks.length);
      blocks.push({ instructions: [], next: [] });
    } else if (instruction && !/^(s_delay_alu|s_nop|s_waitcnt)/.test(instruction[1] ?? '')) {
      blocks.at(-1)?.instructions.push(instruction[1] ?? '');
    }
  }
  for (const [index, { instructions, next }] of blocks.entries()) {
    const jumps = instructions.flatMap((line) => /^s_c?branch\S* (BB\d+)/.exec(line)?.[1] ?? []);
    next.push(...jumps.flatMap((label) => labels.get(label) ?? []));
    if (!instructions.at(-1)?.startsWith('s_branch') && index + 1 < blocks.length) next.push(index + 1);
  }
  return {
    registers: numberAfter(section, 'VGPRs'),
    spills: numberAfter(section, 'Spilled VGPRs') + numberAfter(section, 'Scratch size'),
    warps: numberAfter(section, 'Subgroups per SIMD'),
    instructions: numberAfter(section, 'Instructions'),
    blocks,
  };
}

/** AGX prints the shader after each pass, and the preamble, which runs once for all threads. The longest listing is the kernel. */
function agxBlocks(output: string): Block[][] {
  const shaders: Block[][][] = [];
  for (const line of lines(output)) {
    if (line.startsWith('shader: ')) shaders.push([]);
    if (line === 'block0 {') shaders.at(-1)?.push([]);
    const blocks = shaders.at(-1)?.at(-1);
    const end = /^\} ?(?:-> )?((?:block\d+ ?)*)/.exec(line);
    if (/^block\d+ \{/.test(line)) blocks?.push({ instructions: [], next: [] });
    else if (end) blocks?.at(-1)?.next.push(...[...(end[1] ?? '').matchAll(/\d+/g)].map(([index]) => Number(index)));
    else if (line.startsWith('   ')) blocks?.at(-1)?.instructions.push(line.trim());
  }
  const length = (blocks: readonly Block[]) => blocks.reduce((sum, { instructions }) => sum + instructions.length, 0);
  return shaders.map((passes) => {
    const most = Math.max(...passes.map(length));
    return passes.findLast((blocks) => 2 * length(blocks) > most) ?? [];
  });
}

/** Listings are on stdout, one per compiled shader in order; statistics are on stderr. */
function agxListings(errors: string, output: string): Map<number, Listing> {
  const shaders = agxBlocks(output);
  const sections = [...marked(errors, (line) => line.startsWith('CS shader: '))].filter(
    ([, section]) => section.length > 0,
  );
  if (sections.length !== shaders.length) throw new Error(`${shaders.length} listings of ${sections.length} kernels`);
  return new Map(
    sections.map(([id, [line = '']], index) => {
      const figure = (name: string) => Number(new RegExp(`(\\d+) ${name}`).exec(line)?.[1] ?? 0);
      const [, spilled, filled] = /(\d+):(\d+) spills/.exec(line) ?? [];
      return [
        id,
        {
          registers: figure('gprs') / 2,
          spills: Number(spilled) + Number(filled),
          warps: figure('threads') / 32,
          instructions: figure('instrs'),
          blocks: shaders[index] ?? [],
        },
      ];
    }),
  );
}

/** Natural loops, as sets of blocks, found by their back edges. */
function loopsOf({ blocks }: Listing): Set<number>[] {
  const before = blocks.map((_, index) => blocks.flatMap(({ next }, from) => (next.includes(index) ? [from] : [])));
  const loops = new Map<number, Set<number>>();
  for (const [from, { next }] of blocks.entries()) {
    for (const head of next.filter((to) => to <= from)) {
      const body = loops.get(head) ?? new Set([head]);
      loops.set(head, body);
      const open = [from];
      for (let block = open.pop(); block !== undefined; block = open.pop()) {
        if (body.has(block)) continue;
        body.add(block);
        open.push(...(before[block] ?? []));
      }
    }
  }
  return [...loops.values()];
}

const contains = (outer: Set<number>, inner: Set<number>): boolean =>
  outer.size > inner.size && [...inner].every((block) => outer.has(block));

const instructionsOf = ({ blocks }: Listing, loop: Set<number>): string[] =>
  [...loop].flatMap((index) => blocks[index]?.instructions ?? []);

const multiplies =
  /\b(ffma|fmul|v_fma|v_fmac|v_mul_f32|v_pk_fma|v_mac|v_mad|v_dot|v_dual_fmac|v_dual_mul|fmadd|ffma32)|\bfma\b/;
const matrixMultiplies = /\b(hmma|v_wmma)/;

/** A kernel's main loop and its multiplications: the innermost loop, or with subgroup matrices the loop with the most multiplications outside nested loops. */
interface MainLoop {
  readonly loop: Set<number>;
  readonly multiplies: number;
  readonly withMatrices: boolean;
}

function mainLoop(listing: Listing): MainLoop | undefined {
  const all = loopsOf(listing);
  const counted = all.flatMap((loop): MainLoop[] => {
    const nested = all.filter((other) => contains(loop, other));
    const own = new Set([...loop].filter((block) => !nested.some((other) => other.has(block))));
    const lines = instructionsOf(listing, own);
    const matrices = lines.filter((line) => matrixMultiplies.test(line)).length;
    if (matrices > 0) return [{ loop: own, multiplies: matrices, withMatrices: true }];
    const scalars = lines.filter((line) => multiplies.test(line)).length;
    return nested.length > 0 ? [] : [{ loop, multiplies: scalars, withMatrices: false }];
  });
  return counted.sort((a, b) => Number(b.withMatrices) - Number(a.withMatrices) || b.multiplies - a.multiplies)[0];
}

/** Instructions of one iteration of the loop with the most multiplications. */
export function productLoopInstructions(listing: Listing): number | undefined {
  const main = mainLoop(listing);
  return main && main.multiplies >= 8 ? instructionsOf(listing, main.loop).length : undefined;
}

/**
 * Instructions of one step of a loop in which a thread multiplies `wanted` times: where the compiler kept an inner loop, its iterations are
 * counted as often as `wanted` takes, with what the loop around it has besides.
 */
export function stepInstructions(listing: Listing, wanted: number): number | undefined {
  const main = mainLoop(listing);
  if (!main) return undefined;
  const inner = instructionsOf(listing, main.loop).length;
  const times = main.withMatrices ? 1 : Math.round(wanted / main.multiplies);
  if (times <= 1) return inner;
  const around = loopsOf(listing)
    .filter((loop) => contains(loop, main.loop))
    .sort((a, b) => a.size - b.size)[0];
  return (around ? instructionsOf(listing, around).length - inner : 0) + times * inner;
}
