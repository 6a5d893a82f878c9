import { describe, expect, it } from 'vitest';
import { cases, setClock, shiftsMs } from '../../proof/clock.ts';

/** A slice of `npm run proof:clock`. */
describe.each(Object.entries(shiftsMs))('a clock that is set %s', (_, byMs) => {
  it.each(cases.filter(({ isLong }) => !isLong))('costs nothing: $name', async (each) => {
    expect(await setClock(each, byMs)).toEqual([]);
  });
});
