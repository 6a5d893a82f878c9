import type { TuningReport } from '../backend/backend.ts';
import { invalidInput } from '../errors.ts';
import { showBytes } from '../units.ts';
import type { Command } from './command.ts';
import { withDecoder } from './decoder.ts';
import { json } from './session.ts';

export const tune: Command = {
  name: 'tune',
  usage: '--model M',
  summary: "Times variants of a model's GPU kernels, and keeps the fastest for this device and driver.",
  options: [],
  async run(values, terminal) {
    values.none();
    await withDecoder(values, terminal, undefined, async ({ model, decoder }) => {
      const { tuner } = decoder;
      if (!tuner) throw invalidInput(`'${decoder.backend}' has nothing to tune.`);
      while (await tuner.ready()) {
        terminal.signal.throwIfAborted();
        await tuner.step();
      }
      const { report } = tuner;
      if (!report) throw new Error('The tuner ended without a report.');
      if (values.switch('json')) json(terminal, { model, ...report });
      else terminal.out(`${showTuning(report).join('\n')}\n`);
    });
  },
};

/** Lines for people: the variants, and what each kernel takes of a token. */
export function showTuning({ trials, kernels, copyBytesPerSecond }: TuningReport): string[] {
  const all = kernels.reduce((sum, { ms }) => sum + ms, 0);
  const rows = kernels.map(({ name, dispatches, ms, bytes }) => {
    const speed = bytes === undefined ? undefined : (1000 * bytes) / ms;
    // A copy reads and writes: half of its bytes each.
    const share =
      speed === undefined || copyBytesPerSecond === undefined ? '' : ` ${percent(speed / copyBytesPerSecond)}`;
    const read = speed === undefined ? '' : `${showBytes(speed)}/s${share}`;
    return `${ms.toFixed(3).padStart(9)} ms ${percent(ms / all).padStart(5)}  ${`${dispatches}x`.padStart(5)}  ${name}  ${read}`.trimEnd();
  });
  return [
    ...trials.map(
      ({ name, tokenMs, chosen }) =>
        `${tokenMs.toFixed(3).padStart(9)} ms a token  ${name}${chosen ? '  (chosen)' : ''}`,
    ),
    '',
    'Time of a token, share, dispatches, kernel, weights read a second and share of the bandwidth of copies:',
    ...rows,
    ...(copyBytesPerSecond === undefined ? [] : [`Copies: ${showBytes(copyBytesPerSecond)}/s read and written.`]),
  ];
}

const percent = (share: number): string => `${Math.round(100 * share)} %`;
