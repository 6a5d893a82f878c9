/** Replaces vitest for the packed kernel tests: Node's test runner with vitest's expectations. */
import { after, before, describe as suite, type TestContext, it as test } from 'node:test';
import { chai, JestAsymmetricMatchers, JestChaiExpect, JestExtend } from '@vitest/expect';

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);

export const expect = Object.assign(chai.expect, { getState: () => ({ currentTestName: '' }) });
export const describe = suite;
export const beforeAll = before;
export const afterAll = after;

/** Allows a test to skip itself, as in vitest. */
export function it(name: string, body: (context: { skip(reason: string): void }) => unknown): void {
  void test(name, async (context: TestContext) => {
    await body({ skip: (reason) => context.skip(reason) });
  });
}
