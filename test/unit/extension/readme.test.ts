import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { withSettings } from '../../../scripts/readme-settings.ts';
import { projectRoot } from '../../../scripts/shared/paths.ts';

it('shows the settings of package.json in the README', () => {
  const readme = readFileSync(join(projectRoot, 'README.md'), 'utf8');
  expect(readme).toBe(withSettings(readme));
});

it('has fewer than 200 lines', () => {
  expect(readFileSync(join(projectRoot, 'README.md'), 'utf8').split('\n').length).toBeLessThan(200);
});
