/** What answers are held to in formats whose thinking and calls are text between tags. */

import type { PromptOptions } from '../formats/promptFormat.ts';
import type { ToolSyntax } from '../formats/toolSyntax.ts';
import {
  type AnswerPlan,
  answerSchema,
  callSteps,
  callsNothing,
  type Forbidden,
  jsonAnswer,
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
  const { tools, required } = wantedCalls(options);
  const schema = answerSchema(options);
  const { open, close, kind, argumentsKey } = syntax;
  const call = (): readonly Step[] =>
    kind === 'xml'
      ? xmlCallSteps(tools)
      : [
          { kind: 'write', text: open === '' ? '{"name": "' : '\n{"name": "' },
          ...callSteps(tools, `", "${argumentsKey}": `, open === '' ? '}' : `}\n${close}`),
        ];
  const opened: readonly Step[] = open === '' ? [] : [{ kind: 'write', text: open }];
  const answer = required ? [...opened, ...call()] : schema === undefined ? [] : [jsonAnswer(schema)];
  return {
    steps: answer.length > 0 && (state.thinks || state.insideThinking) ? [...thinking(state), ...answer] : answer,
    ...(tools.length > 0 && open !== '' && { calls: { opener: open, inHeader: false, steps: call } }),
    forbidden: callsNothing(options) ? noCall(open) : nothingForbidden,
  };
}

/** A bare call is the whole answer. */
const noCall = (open: string): Forbidden =>
  open === '' ? { tokens: [], text: '{"name":', where: 'start' } : { tokens: [open], text: open };

/** A model that is to think opens it itself, where the prompt does not. */
function thinking({ insideThinking }: TaggedState): readonly Step[] {
  const open: readonly Step[] = insideThinking ? [] : [{ kind: 'write', text: '<think>\n' }];
  return [...open, { kind: 'think' }, { kind: 'write', text: '\n\n' }];
}
