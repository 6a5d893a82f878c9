/** A process that pulls the model `tiny`. The store's tests start, kill and race it. */
import type { CatalogueEntry } from '../../../engine/catalogue/catalogue.ts';
import { openStore } from '../../../engine/catalogue/store.ts';

interface Task {
  readonly directory: string;
  readonly origin: string;
  readonly entry: CatalogueEntry;
}

const task: Task = JSON.parse(process.argv[2] ?? '');
const store = openStore({
  directory: task.directory,
  entries: [task.entry],
  endpoints: { hub: new URL(task.origin), index: new URL(`${task.origin}/simple`) },
});
const model = await store.pull('tiny');
process.stdout.write(JSON.stringify({ state: model.state, path: model.path }));
