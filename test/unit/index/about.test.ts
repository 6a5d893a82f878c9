import { describe, expect, it } from 'vitest';
import { isAboutOpenFile, isAboutTheWhole, relevant, searchFor } from '../../../engine/index/question/planner.ts';

describe('whether the repository is searched', () => {
  it.each(['hello', 'Hi there!', 'thanks a lot!', 'ok, thanks', 'Write me a short story', '12 * 7 = ?', 'Danke!'])(
    'not for %s',
    (question) => expect(searchFor(question, [])).toBeUndefined(),
  );

  it.each(['hello world handler', 'Where is the test runner?', 'write a test for parse', 'How are you parsing dates?'])(
    'for %s',
    (question) => expect(searchFor(question, [])).toMatchObject({ question }),
  );
});

describe('a follow-up', () => {
  const earlier = ['Where is the retry policy?', 'thanks'];

  it.each(['make that shorter, please?', 'why?', 'in German', 'continue'])('changes the answer: %s', (question) =>
    expect(searchFor(question, earlier)).toBeUndefined(),
  );

  it.each(['and its tests?', 'where is it called?'])('is about what was asked before: %s', (question) =>
    expect(searchFor(question, earlier)?.question).toBe(`${question}\nWhere is the retry policy?`),
  );

  it('that names something itself is searched as it stands', () =>
    expect(searchFor('and parseUrl?', earlier)?.question).toBe('and parseUrl?'));
});

describe('a search result', () => {
  const passage = (coverage: number, score: number) => ({
    ...{ path: 'a', firstLine: 1, lastLine: 2, text: '', within: '' },
    ...{ coverage, score },
  });

  it("is attached if it contains the question's words", () =>
    expect(relevant([passage(0.6, 1)], 'valve')).toHaveLength(1));

  it('is left out if it contains few of them', () =>
    expect(relevant([passage(0.1, 5), passage(0.1, 1)], 'valve')).toEqual([]));

  it('must score clearly better than the rest if it contains some', () => {
    const rest = Array.from({ length: 9 }, () => passage(0.4, 1));
    expect(relevant([passage(0.4, 1.05), ...rest], 'valve')).toEqual([]);
    expect(relevant([passage(0.4, 2), ...rest], 'valve')).toHaveLength(10);
  });
});

describe('a search result for a long question', () => {
  it('is attached even if it contains fewer of its words', () => {
    const long = Array.from({ length: 60 }, (_, i) => `word${i}`).join(' ');
    const passage = { path: 'a', firstLine: 1, lastLine: 2, text: '', within: '', score: 1 };
    expect(relevant([{ ...passage, coverage: 0.2 }], long)).toHaveLength(1);
    expect(relevant([{ ...passage, coverage: 0.2 }], 'valve of the tank')).toEqual([]);
    expect(relevant([{ ...passage, coverage: 0.1 }], long)).toEqual([]);
  });
});

describe('the subject of a question', () => {
  it.each(['What is this project?', 'Give me an overview of the codebase', 'How is this repo structured? Explain.'])(
    'the whole: %s',
    (question) => expect(isAboutTheWhole(question)).toBe(true),
  );

  it.each(['Where in the codebase are cookies read?', 'What does the login of my application do?'])(
    'a part: %s',
    (question) => expect(isAboutTheWhole(question)).toBe(false),
  );

  it('the open file', () => {
    expect(isAboutOpenFile('What does this function do?')).toBe(true);
    expect(isAboutOpenFile('Where are cookies read?')).toBe(false);
  });
});
