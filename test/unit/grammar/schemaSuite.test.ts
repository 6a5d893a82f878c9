/** The JSON-Schema-Test-Suite by bytes; with a real vocabulary, token by token, it is `npm run proof:schemas`. */
import { describe, expect, it } from 'vitest';
import { HearthError } from '../../../engine/errors.ts';
import type { Machine } from '../../../engine/grammar/machine.ts';
import { accepts, drafts, isOtherwise, machineOf, styles, suiteGroups } from './schemaSuite.ts';

/** Schemas that are not in the document: `$ref` to a metaschema or to another file, and a `$ref` by the way that led there. */
const refused = { draft4: 10, draft6: 13, draft7: 13, 'draft2019-09': 22, 'draft2020-12': 30 } as const;

function compiled(schema: unknown): Machine | HearthError {
  try {
    return machineOf(schema);
  } catch (error) {
    if (error instanceof HearthError) return error;
    throw error;
  }
}

describe('The JSON-Schema-Test-Suite', () => {
  for (const draft of drafts) {
    it(`passes: ${draft}`, () => {
      const wrong: string[] = [];
      const refusals: string[] = [];
      for (const group of suiteGroups(draft).filter((own) => !isOtherwise(own))) {
        const machine = compiled(group.schema);
        if (machine instanceof HearthError) {
          const canBeMet = group.tests.some(({ valid }) => valid);
          if (canBeMet || !/no value satisfies/.test(machine.message)) refusals.push(machine.message);
          continue;
        }
        for (const { data, valid, description } of group.tests) {
          // Answers that the grammar allows beyond the schema are checked afterwards.
          if (!valid && machine.loose.length > 0) continue;
          for (const text of styles(data))
            if (accepts(machine, text) !== valid)
              wrong.push(`${group.keyword}: ${group.description}: ${description}: ${text}`);
        }
      }
      expect(wrong).toEqual([]);
      expect(
        refusals.filter((message) => !/is not a schema in this document|may refer to several schemas/.test(message)),
      ).toEqual([]);
      expect(refusals.length).toBeLessThanOrEqual(refused[draft]);
    }, 30_000);
  }
});
