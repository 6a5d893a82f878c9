/**
 * Stores measurements and checks of a device, by device, driver, system and version of Hearth, and by kind of model.
 * One JSON file a subject.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import packageJson from '../../../../package.json' with { type: 'json' };
import type { DecoderSpec } from '../../../model/spec/spec.ts';
import type { DecoderWeights } from '../../../model/weights/weights.ts';
import type { CachePrecision } from '../../../protocol/models.ts';
import type { GpuCapabilities } from './adapter.ts';

const deviceKey = ({ vendor, architecture, device, description }: GpuCapabilities): string =>
  [packageJson.version, process.platform, release(), vendor, architecture, device, description].join(' | ');

/** Identifies a kind of model: layers with the same shapes and types have the same kernels, whatever their weights. */
export function modelKey(spec: DecoderSpec, weights: DecoderWeights, precision: CachePrecision): string {
  const identity = [precision, spec, weights.embedding.type, weights.head.type, ...weights.layers.map(typesOf)];
  return createHash('sha256').update(JSON.stringify(identity)).digest('hex').slice(0, 16);
}

/** Types of a layer's matrices, at any depth. */
function typesOf(weights: object): string[] {
  return Object.entries(weights).flatMap(([name, value]: [string, unknown]) => {
    if (name === 'type') return [`${value}`];
    return typeof value === 'object' && value !== null ? typesOf(value) : [];
  });
}

type Records<Value> = Record<string, Record<string, Value>>;

export class DeviceRecords<Value> {
  readonly #path: string | undefined;
  readonly #schema: z.ZodType<Records<Value>>;

  /** @param directory absent: nothing is stored. */
  constructor(directory: string | undefined, name: string, value: z.ZodType<Value>) {
    this.#path = directory === undefined ? undefined : join(directory, `${name}.json`);
    this.#schema = z.record(z.string(), z.record(z.string(), value));
  }

  /** Records of all models on the device. */
  async of(capabilities: GpuCapabilities): Promise<Record<string, Value>> {
    return (await this.#read())[deviceKey(capabilities)] ?? {};
  }

  async keep(capabilities: GpuCapabilities, model: string, value: Value): Promise<void> {
    if (this.#path === undefined) return;
    const all = await this.#read();
    const device = deviceKey(capabilities);
    const temporary = `${this.#path}.${process.pid}`;
    try {
      await mkdir(join(this.#path, '..'), { recursive: true });
      await writeFile(
        temporary,
        JSON.stringify({ ...all, [device]: { ...all[device], [model]: value } }, undefined, 1),
      );
      await rename(temporary, this.#path);
    } catch {
      // If the disk is full or read-only, the next process measures again.
    }
  }

  async #read(): Promise<Records<Value>> {
    if (this.#path === undefined) return {};
    try {
      return this.#schema.parse(JSON.parse(await readFile(this.#path, 'utf8')));
    } catch {
      // Missing or damaged: it is measured again.
      return {};
    }
  }
}
