import { describe, expect, it } from 'vitest';
import { partsOfIdentifier, questionTerms, termsOf } from '../../../engine/index/repository/wordIndex.ts';

describe('the words of a text', () => {
  it.each([
    ['camelCase', ['camel', 'Case']],
    ['snake_case', ['snake', 'case']],
    ['parseHTTPUrl', ['parse', 'HTTP', 'Url']],
    ['SCREAMING_SNAKE', ['SCREAMING', 'SNAKE']],
    ['utf8Stream', ['utf8', 'Stream']],
    ['$private_thing', ['private', 'thing']],
    ['größeÄndern', ['größe', 'Ändern']],
    ['plain', ['plain']],
  ])('split %s into %j', (identifier, parts) => {
    expect(partsOfIdentifier(identifier)).toEqual(parts);
  });

  it('include an identifier whole and in parts', () => {
    expect(termsOf('readFile(path)').trim()).toBe('readfile read file path');
  });

  it('repeat a word no more often than ranking distinguishes', () => {
    expect(termsOf('x '.repeat(100)).trim().split(' ')).toHaveLength(4);
  });

  it('leave out what nobody searches for: digests, keys, long numbers', () => {
    expect(termsOf(`${'ab12'.repeat(20)} 123456789012`)).toBe('');
  });

  it('of a question leave out the commonest of English, unless nothing else is asked', () => {
    expect(questionTerms('Where is the readFile function used?')).toEqual(['readfile', 'read', 'file', 'function']);
    expect(questionTerms('what is this')).toEqual(['what', 'is', 'this']);
  });

  const found = (question: string, text: string): boolean => {
    const stored = new Set(termsOf(text).split(' '));
    return questionTerms(question).some((term) => stored.has(term));
  };
  it.each([
    ['検索', '全文検索エンジンを作る'],
    ['エンジン', '全文検索エンジンを作る'],
    ['猫', 'これは猫である'],
    ['검색', '저장소를 검색한다'],
    ['ค้นหา', 'ฟังก์ชันค้นหาข้อมูล'],
    ['結果', 'get結果List()'],
    ['cafe', 'un café crème'],
    ['café', 'the cafe'],
    ['dunder', 'self.__dunder__()'],
    ['private', '_private = 1'],
    ['0xDEADBEEF', 'magic = 0xDEADBEEF;'],
    ['deadbeef', 'magic = 0xDEADBEEF;'],
    ['0xdeadbeef', 'magic = 0xDEADBEEF;'],
  ])('of the question %j are found in %j', (question, text) => {
    expect(found(question, text)).toBe(true);
  });

  it.each([
    ['索引', '全文検索エンジン'],
    ['犬', 'これは猫である'],
  ])('of the question %j are not found in %j', (question, text) => {
    expect(found(question, text)).toBe(false);
  });
});
