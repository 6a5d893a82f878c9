import * as vscode from 'vscode';
import type { ErrorCode } from '../../engine/errors.ts';

/** Why a request to the engine failed: the engine's own codes, and what only the extension can say. */
export type FailureCode =
  | ErrorCode
  /** The process ended while the request was running. */
  | 'engine-ended'
  /** The process ended too often; it is not started again by itself. */
  | 'engine-given-up'
  /** The engine said something that the protocol does not allow. */
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
