import type { Decoder, SamplingSlice } from '../../engine/backend/backend.ts';
import { type SamplerSettings, sample, without } from '../../engine/backend/sampler.ts';
import type { Sequence } from '../../engine/kv/blockCache.ts';
import { seededRandom } from '../../engine/sampling/random.ts';

/** One conversation, whose tokens the host samples from logits, or the device. */
export class Talk {
  readonly sequence: Sequence;
  readonly history: { readonly sequence: Set<number>; readonly generated: Set<number> };
  readonly tokens: number[];
  readonly #decoder: Decoder;
  readonly #random = seededRandom(5);
  forbidden: readonly number[] = [];

  constructor(decoder: Decoder, sequence: Sequence, tokens: readonly number[]) {
    this.#decoder = decoder;
    this.sequence = sequence;
    this.tokens = [...tokens];
    this.history = { sequence: new Set(tokens), generated: new Set() };
  }

  async choose(settings: SamplerSettings): Promise<void> {
    this.take(sample(without(await this.logits(), this.forbidden), settings, this.history, this.#random));
  }

  async logits(): Promise<Float32Array> {
    const { sequence, tokens } = this;
    const batch = [{ sequence, tokens: tokens.slice(sequence.length), logits: 'last' as const }];
    const [logits = new Float32Array()] = await this.#decoder.run(batch);
    return logits;
  }

  slice(rules: SamplerSettings, steps: number, stopIds: ReadonlySet<number> = new Set()): SamplingSlice {
    const uniforms = Array.from({ length: steps }, () => (rules.temperature > 0 ? this.#random() : 0));
    const { sequence, history } = this;
    return { sequence, token: this.tokens.at(-1) ?? 0, rules, history, uniforms, stopIds, forbidden: this.forbidden };
  }

  take(...tokens: readonly number[]): void {
    for (const token of tokens) {
      this.tokens.push(token);
      this.history.sequence.add(token);
      this.history.generated.add(token);
    }
  }
}
