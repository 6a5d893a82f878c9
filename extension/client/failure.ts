import * as vscode from 'vscode';
import type { ErrorCode } from '../../engine/errors.ts';
import type { Progress } from '../../engine/protocol/engineProtocol.ts';
import { formatDuration } from '../format.ts';
import type { Action, Outcome } from '../messages.ts';

/** Why a request to the engine failed: the engine's codes, and those of the extension itself. */
export type FailureCode =
  | ErrorCode
  /** The process ended while the request was running. */
  | 'engine-ended'
  /** The process ended too often and is not restarted automatically. */
  | 'engine-given-up'
  /** The engine sent something that the protocol does not allow. */
  | 'protocol'
  /** There is no model on this machine yet. */
  | 'no-model'
  /** A broken invariant in the engine. */
  | 'internal';

/** The message tells the user what happened, what was saved and what to do. */
export class EngineFailure extends Error {
  readonly code: FailureCode;

  constructor(code: FailureCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'EngineFailure';
    this.code = code;
  }
}

export const isCancelled = (error: unknown): boolean => error instanceof EngineFailure && error.code === 'cancelled';

/**
 * A failure that the engine reports. Its text is English; in other languages the translated kind of failure precedes it.
 */
export function reportedFailure(code: ErrorCode, message: string, cause: unknown): EngineFailure {
  const kind = vscode.env.language.startsWith('en') ? '' : kinds()[code];
  return new EngineFailure(code, kind === '' ? message : `${kind} ${message}`, { cause });
}

/** Called late: `l10n` is not ready before activation. */
const kinds = (): Record<ErrorCode, string> => ({
  'invalid-input': vscode.l10n.t('Something in the request or in a file is not valid.'),
  unsupported: vscode.l10n.t('Hearth does not support this.'),
  'not-found': vscode.l10n.t('Something was not found.'),
  'out-of-memory': vscode.l10n.t('There is not enough memory.'),
  'context-overflow': vscode.l10n.t('The context window is too small for this.'),
  'device-lost': vscode.l10n.t('The GPU stopped answering.'),
  unavailable: vscode.l10n.t('A download, a disk or a program failed.'),
  busy: vscode.l10n.t('Too many requests are waiting.'),
  timeout: vscode.l10n.t('It took too long.'),
  cancelled: '',
});

export const engineEnded = (): EngineFailure =>
  new EngineFailure('engine-ended', vscode.l10n.t('The engine stopped unexpectedly. It is restarting.'));

export const engineGivenUp = (): EngineFailure =>
  new EngineFailure(
    'engine-given-up',
    vscode.l10n.t('The engine stopped several times in a row, so Hearth no longer restarts it automatically.'),
  );

/** Message of any thrown value. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const remedies: Partial<Record<FailureCode, Action[]>> = {
  'engine-ended': ['retry', 'show-log'],
  'engine-given-up': ['restart', 'show-log'],
  'no-model': ['choose-model'],
  'not-found': ['choose-model', 'settings'],
  unsupported: ['choose-model', 'show-log'],
  'out-of-memory': ['choose-model', 'settings'],
  'context-overflow': ['new-chat', 'settings'],
  unavailable: ['retry', 'show-log'],
  // The engine has retried once itself; now only a new process loads the model again.
  'device-lost': ['restart', 'retry', 'show-log'],
};

/** Message and actions for a failed answer. `partial`: part of the answer was received and saved. */
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
      ? vscode.l10n.t('The engine stopped while answering. The partial answer was saved. The engine is restarting.')
      : vscode.l10n.t('The engine stopped before it could answer. It is restarting.');
  }
  if (code === 'context-overflow') {
    return vscode.l10n.t(
      '{0} Remove the attached file, ask about a smaller selection, start a new chat, or raise hearth.contextTokens.',
      sentence(error),
    );
  }
  if (code === 'internal') {
    return vscode.l10n.t('The engine failed with an internal error: {0}', sentence(error));
  }
  return sentence(error);
}

interface Note {
  note: string;
  share: number | undefined;
}

/** Progress notes of one answer: part N of M and, once a part is done, the estimated time left. */
export function progressNotes(nowMs = () => performance.now()): (step: Progress) => Note {
  const startMs = nowMs();
  return ({ message, done, total, unit }) => {
    const share = total > 0 ? Math.min(1, done / total) : undefined;
    if (unit !== 'parts' || total === 0) return { note: message, share };
    const part = vscode.l10n.t('Part {0} of {1}: {2}', Math.min(done + 1, total), total, message);
    const leftMs = done > 0 ? ((nowMs() - startMs) / done) * (total - done) : undefined;
    return {
      note: leftMs === undefined ? part : vscode.l10n.t('{0} (about {1} left)', part, formatDuration(leftMs)),
      share,
    };
  };
}
