import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { commandTable } from '../../../extension/commands.ts';
import { acceptedCommand } from '../../../extension/completion/provider.ts';
import type { LazyChat, Parts } from '../../../extension/parts.ts';
import {
  chatSettings,
  completionSettings,
  engineSettings,
  modelsDirectory,
  serverSettings,
} from '../../../extension/settings.ts';
import { withSettings } from '../../../scripts/readme-settings.ts';
import { settings } from './vscode.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const property = z.looseObject({ scope: z.string(), markdownDescription: z.string(), default: z.unknown() });
const manifest = z
  .looseObject({
    main: z.string(),
    icon: z.string(),
    capabilities: z.object({
      untrustedWorkspaces: z.object({
        supported: z.literal('limited'),
        description: z.string(),
        restrictedConfigurations: z.array(z.string()),
      }),
      virtualWorkspaces: z.boolean(),
    }),
    contributes: z.looseObject({
      commands: z.array(z.looseObject({ command: z.string(), title: z.string() })),
      configuration: z.array(
        z.object({ id: z.string(), order: z.number(), title: z.string(), properties: z.record(z.string(), property) }),
      ),
      menus: z.record(
        z.string(),
        z.array(z.looseObject({ command: z.string().optional(), submenu: z.string().optional() })),
      ),
      walkthroughs: z.array(
        z.looseObject({ steps: z.array(z.looseObject({ media: z.object({ svg: z.string() }).loose() })) }),
      ),
    }),
  })
  .parse(JSON.parse(readFileSync(`${root}package.json`, 'utf8')));
const texts = z.record(z.string(), z.string()).parse(JSON.parse(readFileSync(`${root}package.nls.json`, 'utf8')));
const properties = Object.assign({}, ...manifest.contributes.configuration.map((part) => part.properties)) as Record<
  string,
  z.infer<typeof property>
>;
const source = readdirSync(`${root}extension`, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => readFileSync(`${root}extension/${name}`, 'utf8'))
  .join('\n');

/** Ids of items and keys of stored values, which look like commands in the source. */
const notCommands = [
  'status',
  'chat',
  'completion',
  'index',
  'server',
  'modelsDirectory',
  'shareEngine',
  'nextEdit',
  'offerDeclined',
  'review',
  'reviewed',
  'svg',
].map((name) => `hearth.${name}`);

describe('the manifest', () => {
  it('has every text that it refers to, and no others', () => {
    const used = [...readFileSync(`${root}package.json`, 'utf8').matchAll(/"%([^%"]+)%"/g)].map((match) => match[1]);
    expect([...new Set(used)].sort()).toEqual(Object.keys(texts).sort());
  });

  it('declares exactly the commands that the extension registers', () => {
    // Creating the table does not use its parts.
    const registered = Object.keys(commandTable({} as Parts, {} as LazyChat)).filter(
      (name) => name !== acceptedCommand,
    );
    expect(manifest.contributes.commands.map(({ command }) => command).sort()).toEqual(registered.sort());
  });

  it('uses only declared commands in menus and code', () => {
    const declared = manifest.contributes.commands.map(({ command }) => command);
    for (const { command, submenu } of Object.values(manifest.contributes.menus).flat()) {
      if (submenu === undefined) expect(declared).toContain(command);
    }
    for (const [, command] of source.matchAll(/'(hearth\.[a-z]\w+)'\s*[,)\]]/g)) {
      if (!notCommands.includes(command ?? '')) {
        expect(declared).toContain(command);
      }
    }
  });

  it('declares exactly the settings that the extension reads', () => {
    const read = [...source.matchAll(/\bread(?:<[^(]+>)?\('([\w.]+)'/g)].map((match) => `hearth.${match[1]}`);
    expect(Object.keys(properties).sort()).toEqual([...new Set(read)].sort());
  });

  it('is the only source of defaults, whose types are those that the extension reads', () => {
    expect(serverSettings()).toBeUndefined();
    expect(modelsDirectory()).toBe('');
    expect(engineSettings()).toEqual({
      ...{
        remote: undefined,
        model: '',
        completionModel: '',
        backend: 'auto',
        contextTokens: undefined,
        threads: undefined,
      },
      ...{ cachePrecision: 'f16', diskCacheBytes: 2 ** 31 },
    });
    expect(completionSettings()).toEqual({
      ...{ enabled: true, debounceMs: 50, languages: { '*': true, plaintext: false, log: false } },
      ...{ multiline: 'auto', confidence: 'balanced', maxTokens: 64 },
    });
    expect(chatSettings()).toEqual({
      ...{ instructions: '', includeActiveFile: true, searchWorkspace: true, useRules: true, sampling: {} },
      ...{ maxTokens: undefined, thinkingTokens: undefined },
    });
  });

  it('gives machine scope to settings that name what is run, loaded or written', () => {
    const machine = [
      'chat.model',
      'completion.model',
      'backend',
      'contextTokens',
      'threads',
      'modelsDirectory',
      'cache.diskMegabytes',
      'remote.url',
      'remote.model',
      'remote.certificates',
      'server.enabled',
      'server.port',
      'index.embeddings',
    ];
    for (const key of machine) expect(properties[`hearth.${key}`]?.scope).toBe('machine');
  });

  it('ignores all settings of a folder that is not trusted', () => {
    const { restrictedConfigurations } = manifest.capabilities.untrustedWorkspaces;
    expect([...restrictedConfigurations].sort()).toEqual(Object.keys(properties).sort());
  });

  it.each([[5], [null], [true], [[]], [{ a: {} }], ['nonsense'], [Number.NaN], [-1]])(
    'falls back to its defaults if settings.json has %o for every key',
    (value) => {
      const values = () => {
        const { remote, ...engine } = engineSettings();
        return { ...engine, ...completionSettings(), ...chatSettings(), ...remote };
      };
      settings.clear();
      const sound = values();
      for (const key of Object.keys(properties)) settings.set(key, value);
      const found: Record<string, unknown> = {
        ...values(),
        server: serverSettings()?.port ?? 0,
        folder: modelsDirectory(),
      };
      settings.clear();
      for (const [key, wanted] of Object.entries(sound)) {
        if (wanted !== undefined && found[key] !== undefined) expect(typeof found[key], key).toBe(typeof wanted);
      }
      expect(['auto', 'webgpu', 'onnx', 'reference']).toContain(found['backend']);
      for (const each of Object.values(found)) expect(each).not.toBeNaN();
    },
  );

  it('lets a workspace turn off what its user turned on, never the reverse', () => {
    for (const key of ['includeActiveFile', 'searchWorkspace', 'useRules'] as const) {
      settings.clear();
      const name = `hearth.chat.${key}`;
      expect(chatSettings()[key]).toBe(true);
      settings.set(name, false);
      expect(chatSettings()[key]).toBe(false);
      settings.set(name, true);
      settings.set(`user.${name}`, false);
      expect(chatSettings()[key]).toBe(false);
    }
    settings.clear();
  });

  it('names files that exist', () => {
    const { icon, contributes } = manifest;
    const pictures = contributes.walkthroughs.flatMap(({ steps }) => steps.map(({ media }) => media.svg));
    for (const file of [icon, 'media/hearth.svg', ...pictures]) expect(existsSync(`${root}${file}`), file).toBe(true);
    expect(contributes.walkthroughs[0]?.steps).toHaveLength(4);
  });
});

describe('the source of the extension', () => {
  it('shows no message without l10n', () => {
    const shown = [...source.matchAll(/show(?:Information|Warning|Error)Message\(\s*(['"`])/g)];
    expect(shown.map((match) => match[0])).toEqual([]);
  });
});

describe('the README', () => {
  const readme = readFileSync(`${root}README.md`, 'utf8');

  it('shows the settings of package.json', () => {
    expect(readme).toBe(withSettings(readme));
  });

  it('has fewer than 200 lines', () => {
    expect(readme.split('\n').length).toBeLessThan(200);
  });
});
