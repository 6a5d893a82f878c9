/** Stands for vitest where the kernels' tests run without it: Node's test runner with vitest's own expectations. */
import { after, before, describe as suite, type TestContext, it as test } from 'node:test';
import { chai, JestAsymmetricMatchers, JestChaiExpect, JestExtend } from '@vitest/expect';

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);

export const expect = Object.assign(chai.expect, { getState: () => ({ currentTestName: '' }) });
export const describe = suite;
export const beforeAll = before;
export const afterAll = after;

/** A test may skip itself, as vitest's do. */
export function it(name: string, body: (context: { skip(reason: string): void }) => unknown): void {
  void test(name, async (context: TestContext) => {
    await body({ skip: (reason) => context.skip(reason) });
  });
}
