/**
 * Replays histories of git repositories. After each line that an author changed: what the pattern and the model offer next, and
 * whether the author made exactly this change in the same commit.
 *
 *     npm run bench:next-edit -- --repository DIR… [--model ID] [--events N] [--commits N] [--seed N] [--show]
 *
 * `--model none` measures the pattern alone, which takes a thousandth of the time.
 *
 * Uses the files of a commit in which only single lines changed. After a file's last change nothing should be offered.
 */
import { basename, dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { defaultModelId } from '../engine/catalogue/catalogue.ts';
import { derivedDirectory } from '../engine/catalogue/files.ts';
import { openStore } from '../engine/catalogue/store.ts';
import { PrefixCache } from '../engine/kv/prefixCache.ts';
import { limits } from '../engine/limits.ts';
import { openModel } from '../engine/model/open.ts';
import { loadDecoder } from '../engine/runtime/backends.ts';
import { seededRandom } from '../engine/sampling/random.ts';
import { engineScheduler } from '../engine/scheduler/scheduler.ts';
import { leastEditLogProbability, rewriteLines } from '../engine/tasks/nextEdit.ts';
import { linesLike, nextPlace, patternOf, placesOf } from '../extension/nextEdit/pattern.ts';
import { type FileChanges, lineChangesOf } from './nextEdit/history.ts';

const { values } = parseArgs({
  options: {
    repository: { type: 'string', multiple: true, default: ['.'] },
    model: { type: 'string', default: defaultModelId },
    events: { type: 'string', default: '12' },
    commits: { type: 'string', default: '600' },
    seed: { type: 'string', default: '1' },
    threads: { type: 'string', default: '1' },
    /** Prints each suggestion. */
    show: { type: 'boolean', default: false },
  },
});

interface Event {
  readonly repository: string;
  readonly file: FileChanges;
  /** Number of changes made so far. */
  readonly made: number;
}

const random = seededRandom(Number(values.seed));

function eventsOf(directory: string): Event[] {
  const name = basename(directory) === 'repo' ? basename(dirname(directory)) : basename(directory);
  const all = [...lineChangesOf(directory, Number(values.commits))].flatMap((file) =>
    file.changes.map((_, i): Event => ({ repository: name, file, made: i + 1 })),
  );
  const ranked = all.map((event) => ({ event, rank: random() })).toSorted((a, b) => a.rank - b.rank);
  return ranked.slice(0, Number(values.events)).map(({ event }) => event);
}

/** The file with the first `made` changes. */
function linesAfter({ file, made }: Event): string[] {
  const lines = [...file.lines];
  for (const { line, after } of file.changes.slice(0, made)) lines[line] = after;
  return lines;
}

type Verdict = 'none' | 'equal' | 'other';

/** Whether the author made this change, next or later in the commit. */
function judged({ file, made }: Event, offered: { line: number; text: string } | undefined): Verdict {
  if (offered === undefined) return 'none';
  const left = file.changes.slice(made);
  return left.some(({ line, after }) => line === offered.line && after === offered.text) ? 'equal' : 'other';
}

function byPattern(event: Event): { line: number; text: string } | undefined {
  const last = event.file.changes[event.made - 1];
  const pattern = last && patternOf(last.before, last.after);
  if (!last || !pattern) return undefined;
  const lines = linesAfter(event);
  const place = nextPlace(placesOf(pattern, lines, last.line), last.line);
  if (!place) return undefined;
  const own = lines[place.line] ?? '';
  return { line: place.line, text: own.slice(0, place.start) + place.text + own.slice(place.end) };
}

async function openWriter() {
  const store = openStore();
  const { spec, weights, tokenizer } = await openModel(await store.resolve(values.model));
  if (!tokenizer) throw new Error(`${values.model} has no vocabulary.`);
  const contextTokens = 4096;
  const directory = derivedDirectory(store.directory);
  const options = { threads: Number(values.threads), cacheDirectory: directory, contextTokens };
  const { decoder } = await loadDecoder('cpu', spec, weights, options);
  const cache = new PrefixCache({ decoder, maxIdle: () => 4 });
  return { scheduler: engineScheduler({ decoder, cache }), tokenizer, contextTokens };
}

const writer = values.model === 'none' ? undefined : await openWriter();

async function byModel(event: Event) {
  const lines = linesAfter(event);
  const { changes, path } = event.file;
  const last = changes[event.made - 1];
  if (!last || !writer) return undefined;
  const above = (line: number): string => lines[line - 1] ?? '';
  const edits = changes
    .slice(Math.max(0, event.made - limits.nextEdit.edits), event.made)
    .map(({ line, before, after }) => ({ path, line, above: above(line), before, after }));
  const places = linesLike(last.before, lines, last.line, limits.nextEdit.places).map((line) => {
    return { line, above: above(line), text: lines[line] ?? '' };
  });
  if (places.length === 0) return undefined;
  const source = { path, edits, places, window: { firstLine: 0, text: '', before: '', cursor: 0 }, random };
  const { edit } = await rewriteLines(writer, source);
  return edit;
}

interface Row {
  readonly repository: string;
  readonly pattern: Verdict;
  readonly model: Verdict;
  readonly logProbability: number;
  /** Whether the author changed another line of the file afterwards. */
  readonly goesOn: boolean;
}

const rows: Row[] = [];
const count = (own: readonly Row[], is: (row: Row) => boolean): number => own.filter(is).length;
const share = (part: number, whole: number): string => (whole === 0 ? '–' : `${((100 * part) / whole).toFixed(0)} %`);

/** `least`: the lowest log-probability of the model's suggestions, which are shown if the pattern has none. */
function line(name: string, own: readonly Row[], least = leastEditLogProbability): string {
  const isShown = (row: Row): boolean => row.pattern === 'none' && row.model !== 'none' && row.logProbability >= least;
  const pattern = count(own, (row) => row.pattern !== 'none');
  const right = count(own, (row) => row.pattern === 'equal');
  const shown = count(own, isShown);
  const equal = count(own, (row) => isShown(row) && row.model === 'equal');
  const both = [pattern + shown, right + equal] as const;
  const cells = [
    own.length,
    count(own, ({ goesOn }) => goesOn),
    pattern,
    share(right, pattern),
    shown,
    share(equal, shown),
  ];
  return `| ${[name, ...cells, both[0], share(both[1], both[0])].join(' | ')} |`;
}

function report(): void {
  console.log(
    '\n| repository | edits | author goes on | pattern shows | equal | model shows besides | equal | both show | equal |',
  );
  console.log('|---|---:|---:|---:|---:|---:|---:|---:|---:|');
  for (const name of new Set(rows.map(({ repository }) => repository))) {
    console.log(
      line(
        name,
        rows.filter(({ repository }) => repository === name),
      ),
    );
  }
  for (const least of [Number.NEGATIVE_INFINITY, -3, -2, -1.5, -1, -0.7, -0.5, -0.3, -0.2, -0.1]) {
    console.log(line(`all, least ${least}`, rows, least));
  }
}

const queue = values.repository.map((directory) => eventsOf(directory));
// Alternates, so that a stopped run has seen all repositories.
for (let i = 0; i < Number(values.events); i++) {
  for (const event of queue.flatMap((events) => events[i] ?? [])) {
    const pattern = byPattern(event);
    const edit = await byModel(event);
    const goesOn = event.made < event.file.changes.length;
    const verdict = judged(event, edit);
    rows.push({
      repository: event.repository,
      pattern: judged(event, pattern),
      model: verdict,
      logProbability: edit?.logProbability ?? 0,
      goesOn,
    });
    if (values.show && edit) {
      const before = linesAfter(event)[edit.line];
      console.error(
        `${verdict} ${edit.logProbability.toFixed(2)} ${JSON.stringify(before)} → ${JSON.stringify(edit.text)}`,
      );
    }
  }
  if (writer) report();
}
report();
await writer?.scheduler.decoder.dispose();
