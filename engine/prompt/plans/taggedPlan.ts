/** What answers are held to in formats whose thinking and calls are text between tags. */

import type { PromptOptions } from '../formats/promptFormat.ts';
import type { ToolSyntax } from '../formats/toolSyntax.ts';
import {
  type AnswerPlan,
  answerSteps,
  callSteps,
  callsNothing,
  type Forbidden,
  nothingForbidden,
  type Step,
  wantedCalls,
  xmlCallSteps,
} from './answerPlan.ts';

export interface TaggedState {
  readonly thinks: boolean;
  /** The prompt has opened the thinking. */
  readonly insideThinking: boolean;
}

export function taggedPlan(syntax: ToolSyntax, options: PromptOptions, state: TaggedState): AnswerPlan {
  const { tools, required, afterCall } = wantedCalls(options);
  const { open, close, kind, argumentsKey } = syntax;
  const named = (written = ''): readonly Step[] =>
    callSteps(tools, `", "${argumentsKey}": `, open === '' ? '}' : `}\n${close}`, written);
  const call = (): readonly Step[] =>
    kind === 'xml'
      ? [...xmlCallSteps(tools), ...afterCall]
      : [{ kind: 'write', text: open === '' ? bareStart : `\n${bareStart}` }, ...named(), ...afterCall];
  const bare = (written: string): readonly Step[] => {
    const steps = named(written);
    return steps.length > 0 ? [...steps, { kind: 'end' }] : [];
  };
  const opened: readonly Step[] = open === '' ? [] : [{ kind: 'write', text: open }];
  const answer = required ? [...opened, ...call()] : answerSteps(options);
  return {
    steps: answer.length > 0 && (state.thinks || state.insideThinking) ? [...thinking(state), ...answer] : answer,
    ...(tools.length > 0 && {
      calls:
        open === ''
          ? { opener: bareOpener, inHeader: false, steps: (_, written) => bare(written) }
          : { opener: open, inHeader: false, steps: call },
    }),
    forbidden: callsNothing(options) ? noCall(open) : nothingForbidden,
  };
}

const bareStart = '{"name": "';
const bareOpener = /^\s*\{\s*"name"\s*:\s*"/;

/** A bare call is the whole answer. */
const noCall = (open: string): Forbidden =>
  open === '' ? { tokens: [], text: '{"name":', where: 'start' } : { tokens: [open], text: open };

/** A model that is to think opens it itself, where the prompt does not. */
function thinking({ insideThinking }: TaggedState): readonly Step[] {
  const open: readonly Step[] = insideThinking ? [] : [{ kind: 'write', text: '<think>\n' }];
  return [...open, { kind: 'think' }, { kind: 'write', text: '\n\n' }];
}
