import { describe, expect, it } from 'vitest';
import { requireEntry } from '../../../engine/catalogue/catalogue.ts';
import { firstModels } from '../../../scripts/shared/firstModels.ts';

const small = requireEntry('smollm2-135m-instruct');
const pair = { chat: requireEntry('gpt-oss-20b'), completion: requireEntry('qwen2.5-coder-1.5b-instruct') };

async function started(
  answer: string | undefined | 'no terminal',
  of: Parameters<typeof firstModels>[0]['pair'] = pair,
) {
  const said: string[] = [];
  const say = (line: string): void => void said.push(line);
  const ask = {
    ask: async (question: string) => {
      say(question);
      return answer;
    },
  };
  const ids = await firstModels({ small, pair: of, say, ...(answer !== 'no terminal' && ask) });
  return { ids, said: said.join('\n') };
}

describe('the first models of npm start', () => {
  it('are the recommended pair if the user agrees, with their sizes', async () => {
    const { ids, said } = await started(' 2\n');
    expect(ids).toEqual(['gpt-oss-20b', 'qwen2.5-coder-1.5b-instruct']);
    expect(said).toMatch(/GPT-OSS 20B, and for completions Qwen2.5-Coder 1.5B Instruct \(\d+\.\d GB\)/);
    expect(said).toContain('98.4 MB');
  });

  it.each([['1'], [''], ['x'], [undefined], ['no terminal']])(
    'are the small one after %o, and the command for the pair',
    async (answer) => {
      const { ids, said } = await started(answer);
      expect(ids).toEqual([small.id]);
      expect(said).toContain(
        'npx hearth models pull gpt-oss-20b && npx hearth models pull qwen2.5-coder-1.5b-instruct',
      );
    },
  );

  it('are not asked about if nothing better runs here', async () => {
    expect(await started('2', { chat: small, completion: undefined })).toEqual({ ids: [small.id], said: '' });
  });
});
