import * as vscode from 'vscode';
import type { Progress } from '../../engine/protocol/engineProtocol.ts';
import { EngineFailure, type FailureCode, sentence } from '../client/failure.ts';
import type { Action, Outcome } from '../messages.ts';

const remedies: Partial<Record<FailureCode, Action[]>> = {
  'engine-ended': ['retry', 'show-log'],
  'engine-given-up': ['restart', 'show-log'],
  'no-model': ['choose-model'],
  'not-found': ['choose-model', 'settings'],
  unsupported: ['choose-model', 'show-log'],
  'out-of-memory': ['choose-model', 'settings'],
  'context-overflow': ['new-chat', 'settings'],
  unavailable: ['retry', 'show-log'],
  'device-lost': ['retry', 'show-log'],
};

/** What a failed answer says and offers. `partial`: some of the answer had come, and is kept. */
export function failedOutcome(error: unknown, partial: boolean): Outcome {
  const code = error instanceof EngineFailure ? error.code : 'internal';
  if (code === 'cancelled') return { kind: 'stopped' };
  return {
    kind: 'failed',
    message: failureText(code, error, partial),
    actions: remedies[code] ?? ['retry', 'show-log'],
  };
}

function failureText(code: FailureCode, error: unknown, partial: boolean): string {
  if (code === 'engine-ended') {
    return partial
      ? vscode.l10n.t(
          'The engine stopped while it was answering. What it had written is kept; it is being started again.',
        )
      : vscode.l10n.t('The engine stopped before it could answer. It is being started again.');
  }
  if (code === 'context-overflow') {
    return vscode.l10n.t(
      '{0} Remove the attached file, ask about a smaller selection, start a new chat, or raise hearth.contextTokens.',
      sentence(error),
    );
  }
  if (code === 'internal') {
    return vscode.l10n.t('The engine could not answer because of an error of its own: {0}', sentence(error));
  }
  return sentence(error);
}

export function progressNote(step: Progress): { note: string; share: number | undefined } {
  return { note: step.message, share: step.total > 0 ? Math.min(1, step.done / step.total) : undefined };
}
