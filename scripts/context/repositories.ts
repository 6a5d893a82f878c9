/** The repositories that context is measured on. */
import { fetched } from '../completion/corpus.ts';
import type { Source } from './sources.ts';

export interface ContextSource extends Source {
  /** Folder of the repository in what is fetched. */
  readonly inside: string;
  /** No rule was looked at with it; it is measured once a release. */
  readonly heldBack: boolean;
}

const of = (name: string, inside: string, heldBack: boolean): ContextSource[] =>
  fetched.filter((source) => source.name === `corpus ${name}`).map((source) => ({ ...source, inside, heldBack }));

export const contextSources: readonly ContextSource[] = [
  ...of('zod 4.1.12', 'package', false),
  ...of('requests 2.32.5', 'requests-2.32.5', false),
  ...of('cobra 1.8.1', 'modules/github.com/spf13/cobra@v1.8.1', false),
  ...of('gson 2.11.0', '.', false),
  ...of('ruby-rack', '.', true),
  ...of('regex-automata 0.4.8', 'vendor/regex-automata', true),
  ...of('psutil 6.1.0', 'psutil-6.1.0', true),
  ...of('pythonnet 3.0.5', 'pythonnet-3.0.5', true),
];
