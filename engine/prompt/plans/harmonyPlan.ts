/** What GPT-OSS's answers are held to. */

import type { PromptOptions } from '../formats/promptFormat.ts';
import {
  type AnswerPlan,
  answerSteps,
  callSteps,
  callsNothing,
  literal,
  marked,
  nothingForbidden,
  type Step,
  wantedCalls,
} from './answerPlan.ts';

/** Begins the answer after the end of another message. */
export const answerStart = '<|start|>assistant<|channel|>final<|message|>';

export function harmonyPlan(options: PromptOptions): AnswerPlan {
  const { tools, required } = wantedCalls(options);
  const afterName = `${' '}${marked('<|constrain|>')}json${marked('<|message|>')}`;
  // It ends the turn, so that no grammar may take it.
  const end: Step = { kind: 'write', text: '<|call|>' };
  const named = (after: string): readonly Step[] => [...callSteps(tools, after, ''), end];
  const call = '<|channel|>commentary to=functions.';
  const answer: readonly Step[] = required ? named(afterName) : answerSteps(options);
  const start = required ? call : '<|channel|>final<|message|>';
  return {
    steps: answer.length > 0 ? [thoughtOr(start, answer)] : [],
    ...(tools.length > 0 && {
      calls: {
        opener: ' to=',
        inHeader: true,
        // The recipient may stand before the channel as well.
        steps: (before) => [
          { kind: 'write', text: 'functions.' },
          ...named(before.includes('<|channel|>') ? afterName : `${marked('<|channel|>')}commentary${afterName}`),
        ],
      },
    }),
    forbidden: callsNothing(options)
      ? { tokens: ['<|call|>', '<|constrain|>'], text: ' to=', where: 'header' }
      : nothingForbidden,
  };
}

/** The first message: an analysis, after which the answer's message begins, or the answer's at once. */
function thoughtOr(start: string, answer: readonly Step[]): Step {
  const analysis = `${marked('<|channel|>')}analysis${marked('<|message|>')}`;
  const direct = start.replace(/<\|\w+\|>/g, (name) => marked(name));
  return {
    kind: 'choose',
    grammar: { form: [[literal(analysis)], [literal(direct)]] },
    follow: (text) =>
      text.startsWith('<|channel|>analysis')
        ? [{ kind: 'think' }, { kind: 'write', text: `<|start|>assistant${start}` }, ...answer]
        : answer,
  };
}
