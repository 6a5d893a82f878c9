/** Expanded experts, the least recently used given up first: a large model has more of them than memory holds. */
import type { GatedNetwork } from './weights.ts';

const maxBytes = 1024 * 1024 * 1024;

export class ExpertCache {
  /** In order of use. */
  private readonly networks = new Map<string, GatedNetwork>();
  bytes = 0;

  async get(key: string, expand: () => Promise<GatedNetwork>): Promise<GatedNetwork> {
    const network = this.networks.get(key) ?? (await expand());
    if (!this.networks.delete(key)) this.bytes += bytesOf(network);
    this.networks.set(key, network);
    for (const [oldKey, old] of this.networks) {
      if (this.bytes <= maxBytes || oldKey === key) break;
      this.networks.delete(oldKey);
      this.bytes -= bytesOf(old);
    }
    return network;
  }
}

function bytesOf({ gate, up, down }: GatedNetwork): number {
  return [gate, up, down].reduce((sum, { weight }) => sum + weight.values.byteLength, 0);
}
