import { describe, expect, it } from 'vitest';
import { argmax } from '../../../engine/backend/sampler.ts';
import { HearthError } from '../../../engine/errors.ts';
import { PrefixCache } from '../../../engine/kv/prefixCache.ts';
import { type Machine, Scheduler } from '../../../engine/scheduler/scheduler.ts';
import { FakeDecoder, hashOf } from './fakeDecoder.ts';
import { patient } from './setUp.ts';

const vocabularySize = 50;
const loss = new HearthError('device-lost', 'The GPU stopped answering (unplugged).');

/** A machine whose device goes in its run `lostAt`, and from then on; `late`: after it took that pass. */
function machine(lostAt = Number.POSITIVE_INFINITY, late = false): Machine & { readonly decoder: FakeDecoder } {
  let runs = 0;
  const beforeRun = (): void => {
    if (runs++ >= lostAt + Number(late)) throw loss;
  };
  const afterSubmit = async (): Promise<void> => {
    if (runs > lostAt) throw loss;
  };
  const decoder = new FakeDecoder({ vocabularySize, maxTokensPerRun: 8, beforeRun, ...(late && { afterSubmit }) });
  return {
    decoder,
    cache: new PrefixCache({ decoder, maxIdle: () => 2 }),
  };
}

function schedulerOn(first: Machine, recover?: () => Promise<Machine>): Scheduler {
  let clock = 0;
  return new Scheduler({
    ...first,
    ...(recover && { recover }),
    maxPendingPerClass: 64,
    patienceMs: patient,
    now: () => clock++,
    yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
  });
}

const prompt = Array.from({ length: 20 }, (_, i) => i);

function ask(scheduler: Scheduler, requestClass: 'chat' | 'summary' = 'chat') {
  const received: number[] = [];
  const deliver = (token: number) => {
    received.push(token);
    return 'continue' as const;
  };
  const outcome = scheduler.submit({ requestClass, prompt, maxTokens: 6, choose: argmax, deliver });
  return { received, outcome };
}

/** What the fake decoder says when it has the whole sequence right. */
function undisturbed(count: number): number[] {
  const tokens = [...prompt];
  for (let i = 0; i < count; i++) tokens.push(hashOf(tokens, vocabularySize));
  return tokens.slice(prompt.length);
}

describe('when the device is lost', () => {
  it.each([0, 1, 2])('with pass %i in flight, a request continues on another machine', async (lostAt) => {
    let recoveries = 0;
    const scheduler = schedulerOn(machine(lostAt, true), async () => {
      recoveries++;
      return machine();
    });
    const { received, outcome } = ask(scheduler);
    await outcome;
    expect(received).toEqual(undisturbed(6));
    expect(recoveries).toBe(1);
  });

  it('a request continues on another machine: no token is lost or repeated', async () => {
    // Three chunks of prompt, then a token a step: run 5 is in the middle of the answer.
    const [first, second] = [machine(5), machine()];
    const scheduler = schedulerOn(first, async () => second);
    const { received, outcome } = ask(scheduler);
    expect(await outcome).toMatchObject({ finish: 'length', generatedTokens: 6 });
    expect(received).toEqual(undisturbed(6));
    expect(second.decoder.runs[0]).toMatchObject({ start: 0, tokens: prompt.slice(0, 8) });
    expect(first.decoder.live.size).toBe(0);
    expect(scheduler.decoder).toBe(second.decoder);
  });

  it('waiting requests continue too', async () => {
    const scheduler = schedulerOn(machine(4), async () => machine());
    const both = [ask(scheduler), ask(scheduler, 'summary')];
    for (const { received, outcome } of both) {
      await outcome;
      expect(received).toEqual(undisturbed(6));
    }
  });

  it('a second loss is survived too', async () => {
    const machines = [machine(1), machine(6), machine()];
    const scheduler = schedulerOn(machine(0), async () => machines.shift() ?? machine(0));
    const { received, outcome } = ask(scheduler);
    await outcome;
    expect(received).toEqual(undisturbed(6));
    expect(machines).toEqual([]);
  });

  it('every request fails with the reason if there is no other machine, and later requests are tried again', async () => {
    let found: Machine | undefined;
    const scheduler = schedulerOn(machine(2), async () => {
      if (!found) throw new HearthError('unavailable', 'no other device');
      return found;
    });
    const both = [ask(scheduler), ask(scheduler, 'summary')];
    for (const { outcome } of both) await expect(outcome).rejects.toThrow('no other device');
    expect(scheduler.pending).toBe(0);
    found = machine();
    const later = ask(scheduler);
    await later.outcome;
    expect(later.received).toEqual(undisturbed(6));
  });

  it('a running request fails with a typed error without recovery', async () => {
    await expect(ask(schedulerOn(machine(2))).outcome).rejects.toMatchObject({ code: 'device-lost' });
  });
});
