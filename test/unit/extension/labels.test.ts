import { expect, it } from 'vitest';
import { distinctLabels } from '../../../extension/chat/conversation.ts';

const label = (path: string, text: string) => ({ path, label: text });

it('adds folders to files of the same name until they differ, and leaves the others', () => {
  const items = [
    label('packages/a/src/index.ts', 'index.ts:1–9'),
    label('packages/a/src/index.ts', 'index.ts:20–30'),
    label('packages/b/src/index.ts', 'index.ts:1–9'),
    label('index.ts', 'index.ts'),
    label('src/sums.py', 'sums.py'),
    label('lib/lamp.py', 'light'),
    label('map', 'Repository map'),
  ];
  expect(distinctLabels(items).map((item) => item.label)).toEqual([
    'a/src/index.ts:1–9',
    'a/src/index.ts:20–30',
    'b/src/index.ts:1–9',
    'index.ts',
    'sums.py',
    'light',
    'Repository map',
  ]);
});
