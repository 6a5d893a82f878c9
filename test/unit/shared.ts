/** Data that we may not redistribute is beside the project, in `../shared`. Tests that need it are skipped without it. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'vitest';
import type { AttentionSpec, RopeSpec } from '../../engine/model/spec/spec.ts';

const projectRoot = fileURLToPath(new URL('../../', import.meta.url));

/** Absolute path of `../shared/<path>`, whether it exists or not. */
export function sharedFile(path: string): string {
  return fileURLToPath(new URL(`../shared/${path}`, `file://${projectRoot}`));
}

/** Absolute path of `test/fixtures/<path>`. */
export function fixtureFile(path: string): string {
  return fileURLToPath(new URL(`test/fixtures/${path}`, `file://${projectRoot}`));
}

/** A suite that is skipped for `reason`, which is printed, if there is one. */
export function describeUnless(reason: string | undefined, name: string, body: () => void): void {
  if (reason === undefined) describe(name, body);
  else describe.skip(`${name} (skipped: ${reason})`, body);
}

/** A suite that needs every one of `paths` (relative to `../shared`); skipped, with the reason printed, where one is absent. */
export function describeShared(name: string, paths: readonly string[], body: () => void): void {
  const missing = paths.filter((path) => !existsSync(sharedFile(path)));
  if (missing.length === 0) {
    describe(name, body);
    return;
  }
  const reason = `skipped: ../shared lacks ${missing.join(', ')}`;
  console.warn(`${name}: ${reason}`);
  // Not the body: it may read the data to know its tests.
  describe.skip(name, () => it(reason, () => undefined));
}

/** The same attention with other rotary settings. */
export function withRope(attention: AttentionSpec, changed: Partial<RopeSpec>): AttentionSpec {
  if (attention.kind === 'gated-delta') throw new Error('A gated delta net has no positions.');
  return { ...attention, rope: { ...attention.rope, ...changed } };
}
