import * as vscode from 'vscode';
import { EngineFailure, sentence } from '../client/failure.ts';

/** The engine's failure as the error that users of the host's API look for. */
export function hostError(error: unknown): Error {
  const code = error instanceof EngineFailure ? error.code : 'internal';
  if (code === 'cancelled') return new vscode.CancellationError();
  if (code === 'no-model' || code === 'not-found') return vscode.LanguageModelError.NotFound(sentence(error));
  return new vscode.LanguageModelError(sentence(error));
}
