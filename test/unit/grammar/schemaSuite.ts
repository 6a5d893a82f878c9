/** The JSON-Schema-Test-Suite (required keywords, MIT, as python-jsonschema 4.23 carries it), and how its values are written. */
import { readFileSync } from 'node:fs';
import { Machine } from '../../../engine/grammar/machine.ts';
import { fixtureFile } from '../shared.ts';

export const drafts = ['draft4', 'draft6', 'draft7', 'draft2019-09', 'draft2020-12'] as const;
export type DraftName = (typeof drafts)[number];

export interface SuiteGroup {
  readonly keyword: string;
  readonly description: string;
  readonly schema: unknown;
  readonly tests: readonly { readonly description: string; readonly data: unknown; readonly valid: boolean }[];
}

const declared: Readonly<Record<DraftName, string>> = {
  draft4: 'http://json-schema.org/draft-04/schema#',
  draft6: 'http://json-schema.org/draft-06/schema#',
  draft7: 'http://json-schema.org/draft-07/schema#',
  'draft2019-09': 'https://json-schema.org/draft/2019-09/schema',
  'draft2020-12': 'https://json-schema.org/draft/2020-12/schema',
};

/** Schemas of the older drafts do not say which they are written in, here they do. */
export function suiteGroups(draft: DraftName): SuiteGroup[] {
  const text = readFileSync(fixtureFile(`jsonSchemaTestSuite/${draft}.json`), 'utf8');
  const files = JSON.parse(text) as Record<string, Omit<SuiteGroup, 'keyword'>[]>;
  return Object.entries(files).flatMap(([keyword, groups]) =>
    groups.map((group) => ({
      ...group,
      keyword,
      schema:
        typeof group.schema === 'object' && group.schema !== null && !('$schema' in group.schema)
          ? { $schema: declared[draft], ...group.schema }
          : group.schema,
    })),
  );
}

/**
 * Groups whose expectations Hearth does not share: it enforces ten formats, which the suite treats as annotations, and it does
 * not fetch a metaschema that switches keywords off.
 */
export const isOtherwise = ({ keyword }: SuiteGroup): boolean => keyword === 'format' || keyword === 'vocabulary';

/** A value as JavaScript writes it, as Python does (ASCII alone), and over several lines. */
export function styles(value: unknown): string[] {
  return [...new Set([JSON.stringify(value), python(value), JSON.stringify(value, null, 2)])];
}

function python(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).map(([name, own]) => `${python(name)}: ${python(own)}`);
    return `{${members.join(', ')}}`;
  }
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

export const machineOf = (schema: unknown): Machine => new Machine([[{ kind: 'json', schema }]]);

/** The text may be an answer, byte by byte. */
export function accepts(machine: Machine, text: string): boolean {
  const state = machine.take(machine.state(machine.start), new TextEncoder().encode(text));
  return state?.mayEnd ?? false;
}
