/** Patterns of the `format`s that are enforced; the others are remarks, as JSON Schema has it. */
import type { Dfa } from './dfa.ts';
import { patternDfa } from './patterns.ts';

const leapDay = '([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29';
const monthDay =
  '((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))';
const date = `([0-9]{4}-${monthDay}|${leapDay})`;
const time = '([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])';
const label = '[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?';
const atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
const byte = '(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
const ipv4 = `${byte}(\\.${byte}){3}`;
const group = '[0-9A-Fa-f]{1,4}';

/** RFC 4291: eight groups, of which one run of zeros may be left out. */
const ipv6 = [
  `(${group}:){7}${group}`,
  `(${group}:){1,7}:`,
  ...[1, 2, 3, 4, 5, 6].map((after) => `(${group}:){1,${7 - after}}(:${group}){1,${after}}`),
  `:((:${group}){1,7}|:)`,
].join('|');

const digits = '[0-9]{1,9}';
const clock = `(${digits}H(${digits}M(${digits}S)?)?|${digits}M(${digits}S)?|${digits}S)`;
const days = `(${digits}Y(${digits}M(${digits}D)?)?|${digits}M(${digits}D)?|${digits}D)`;

const patterns: Readonly<Record<string, string>> = {
  date,
  time,
  'date-time': `${date}T${time}`,
  duration: `P(${digits}W|${days}(T${clock})?|T${clock})`,
  email: `${atom}(\\.${atom})*@(${label}\\.)+[A-Za-z]{2,18}`,
  hostname: `${label}(\\.${label})*`,
  ipv4,
  ipv6,
  uuid: '[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}',
  uri: "[A-Za-z][A-Za-z0-9+.-]*:([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})+",
};

const made = new Map<string, Dfa>();

export const enforcedFormats: readonly string[] = Object.keys(patterns);

/** `undefined`: the format is not enforced. */
export function formatDfa(format: string): Dfa | undefined {
  const pattern = Object.hasOwn(patterns, format) ? patterns[format] : undefined;
  if (pattern === undefined) return undefined;
  const dfa = made.get(format) ?? patternDfa(`^(${pattern})$`);
  made.set(format, dfa);
  return dfa;
}
