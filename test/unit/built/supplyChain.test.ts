import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { grammars } from '../../../engine/index/syntax/grammars.ts';
import { linkedNotices } from '../../../scripts/notices.ts';
import { billOfMaterials } from '../../../scripts/sbom.ts';
import { projectRoot } from '../../../scripts/shared/paths.ts';

const read = (path: string): string => readFileSync(join(projectRoot, path), 'utf8');
const manifest = z.object({ dependencies: z.record(z.string(), z.string()) }).parse(JSON.parse(read('package.json')));
const locked = z
  .object({
    packages: z.record(
      z.string(),
      z.object({ resolved: z.string().optional(), integrity: z.string().optional(), link: z.boolean().optional() }),
    ),
  })
  .parse(JSON.parse(read('package-lock.json')));

describe('every package', () => {
  it('comes from the public registry, with its digest', () => {
    const foreign = Object.entries(locked.packages).filter(([name, { resolved, integrity, link }]) => {
      if (name === '' || link || !name.includes('node_modules/')) return false;
      const isPublic =
        resolved === undefined ||
        resolved.startsWith('https://registry.npmjs.org/') ||
        resolved.startsWith('file:') ||
        resolved.startsWith('scripts/');
      return !isPublic || (resolved?.startsWith('https:') && integrity === undefined);
    });
    expect(foreign).toEqual([]);
  });

  it('that ships is in the bill of materials, with a licence that a product may carry', {
    timeout: 60_000,
  }, async () => {
    const licence = z.object({ license: z.object({ id: z.string() }) });
    const bill = z
      .object({
        bomFormat: z.literal('CycloneDX'),
        components: z.array(
          z.object({
            name: z.string(),
            purl: z.string().startsWith('pkg:npm/'),
            properties: z.array(z.object({ name: z.string() })).default([]),
            licenses: z.array(z.union([licence, z.object({ expression: z.string() })])).default([]),
          }),
        ),
      })
      .parse(JSON.parse(await billOfMaterials()));
    const shipped = bill.components.filter(
      ({ properties }) => !properties.some(({ name }) => name === 'cdx:npm:package:development'),
    );
    // Its package.json names no licence; the text that comes with it does.
    expect(read('node_modules/khroma/license')).toContain('The MIT License (MIT)');
    for (const { name, licenses } of shipped.filter((each) => each.name !== 'khroma'))
      expect(licenses, name).not.toEqual([]);
    const names = shipped.map(({ name }) => name);
    for (const name of Object.keys(manifest.dependencies)) expect(names).toContain(name);
    const permissive =
      /^(MIT|ISC|BlueOak-1\.0\.0|0BSD|Unlicense|BSD-[23]-Clause|Apache-2\.0|\(?MPL-2\.0 OR Apache-2\.0\)?|\(?Apache-2\.0 AND BSD-3-Clause\)?)$/;
    const licences = shipped.flatMap(({ name, licenses }) =>
      licenses.map((each) => [name, 'license' in each ? each.license.id : each.expression] as const),
    );
    expect(licences.filter(([, id]) => !permissive.test(id))).toEqual([]);
  });
});

describe('the notices', () => {
  it('name every grammar, and the version of ONNX Runtime that ships', () => {
    const text = linkedNotices(['onnxruntime-node']).join('\n');
    for (const grammar of grammars) expect(text).toContain(`tree-sitter-${grammar === 'tsx' ? 'typescript' : grammar}`);
    const { version } = z
      .object({ version: z.string() })
      .parse(JSON.parse(read('node_modules/onnxruntime-node/package.json')));
    expect(text).toContain(`ONNX Runtime ${version} `);
  });
});

describe('the workflows', () => {
  const workflows = readdirSync(join(projectRoot, '.github/workflows')).map((name) =>
    read(`.github/workflows/${name}`),
  );

  it('run actions of one commit each, which names its version', () => {
    const used = workflows.flatMap((text) => [...text.matchAll(/uses: (.*)$/gm)].map(([, action]) => action));
    expect(used.length).toBeGreaterThan(5);
    for (const action of used) expect(action).toMatch(/^actions\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
  });

  it('give no token that can write to a job that runs packages', () => {
    for (const text of workflows) {
      expect(text).toMatch(/^permissions:\n {2}contents: read$/m);
      // Every checkout keeps its token to itself, and jobs begin at two spaces.
      expect(text.match(/persist-credentials: false/g)?.length).toBe(text.match(/actions\/checkout@/g)?.length);
      for (const job of text.split(/^ {2}(?=\w+:$)/m))
        if (/: write/.test(job)) expect(job).not.toMatch(/\bnpm\b(?! )|npm (ci|run|i)/);
    }
  });
});
