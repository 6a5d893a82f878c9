import { describe, expect, it } from 'vitest';
import { partsOfIdentifier, questionTerms, termsOf } from '../../../engine/index/repository/terms.ts';

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
  ])('cut %s at %j', (identifier, parts) => {
    expect(partsOfIdentifier(identifier)).toEqual(parts);
  });

  it('hold an identifier whole and in parts', () => {
    expect(termsOf('readFile(path)').trim()).toBe('readfile read file path');
  });

  it('repeat a word no more often than ranking can tell apart', () => {
    expect(termsOf('x '.repeat(100)).trim().split(' ')).toHaveLength(4);
  });

  it('leave out what nobody asks for: digests, keys, long numbers', () => {
    expect(termsOf(`${'ab12'.repeat(20)} 123456789012`)).toBe('');
  });

  it('of a question leave out the commonest of English, unless nothing else is asked', () => {
    expect(questionTerms('Where is the readFile function used?')).toEqual(['readfile', 'read', 'file', 'function']);
    expect(questionTerms('what is this')).toEqual(['what', 'is', 'this']);
  });
});
