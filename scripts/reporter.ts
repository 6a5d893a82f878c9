/**
 * A vitest reporter that writes the totals of a run to the file in HEARTH_TEST_SUMMARY, for scripts/test.ts to add up. The
 * variable is unset when vitest is run by hand.
 */
import { writeFileSync } from 'node:fs';
import type { Reporter, TestModule } from 'vitest/node';
import { z } from 'zod';

export const testSummary = z.object({
  passed: z.number(),
  failed: z.array(z.object({ name: z.string(), reason: z.string() })),
  skipped: z.array(z.object({ name: z.string(), reason: z.string() })),
});
export type TestSummary = z.infer<typeof testSummary>;

export const summaryVariable = 'HEARTH_TEST_SUMMARY';

export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly { readonly message: string }[]): void {
    const path = process.env[summaryVariable];
    if (path === undefined) return;
    const summary: TestSummary = { passed: 0, failed: failures('unhandled error', unhandledErrors), skipped: [] };
    for (const module of modules) addModule(summary, module);
    writeFileSync(path, JSON.stringify(summary));
  }
}

function failures(name: string, errors: readonly { readonly message: string }[]): TestSummary['failed'] {
  return errors.map(({ message }) => ({ name, reason: message }));
}

function addModule(summary: TestSummary, module: TestModule): void {
  // A file that fails to import has no tests, so each of its errors counts as a failure.
  summary.failed.push(...failures(module.relativeModuleId, module.errors()));
  for (const suite of module.children.allSuites()) summary.failed.push(...failures(suite.fullName, suite.errors()));
  for (const test of module.children.allTests()) {
    const result = test.result();
    if (result.state === 'passed') summary.passed++;
    else if (result.state === 'failed') {
      const reason = result.errors.map(({ message }) => message).join('\n');
      summary.failed.push({ name: `${module.relativeModuleId} > ${test.fullName}`, reason });
    } else summary.skipped.push({ name: test.fullName, reason: skipReason(test.fullName, result) });
  }
}

/** The reason passed to `context.skip(reason)`, or contained in the name of the test or its suite. */
function skipReason(name: string, result: object): string {
  if ('note' in result && typeof result.note === 'string') return result.note;
  return /\bskipped[:,] ([^)]+)/.exec(name)?.[1] ?? 'no reason given';
}
