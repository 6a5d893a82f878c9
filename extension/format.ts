/** Numbers as people read them, in the language of VS Code. */
import * as vscode from 'vscode';

/** Decimal units, as disks and downloads are sold. */
export function formatBytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  if (bytes >= 1e6) return `${Math.round(bytes / 1e6)} MB`;
  return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
}

export function formatParameters(parameters: number): string {
  if (parameters >= 1e9) return `${(parameters / 1e9).toFixed(parameters < 1e10 ? 1 : 0)} B`;
  return `${Math.round(parameters / 1e6)} M`;
}

export function formatSpeed(tokensPerSecond: number): string {
  const digits = tokensPerSecond < 10 ? 1 : 0;
  return vscode.l10n.t('{0} tokens/s', tokensPerSecond.toFixed(digits));
}

/** 0 to 100, or undefined while the total is not known. */
export function percent(done: number, total: number): number | undefined {
  return total > 0 ? Math.min(100, Math.floor((done / total) * 100)) : undefined;
}

/** An age in its largest whole unit. */
export function formatAge(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return vscode.l10n.t('now');
  if (minutes < 60) return vscode.l10n.t('{0} min ago', minutes);
  if (minutes < 24 * 60) return vscode.l10n.t('{0} h ago', Math.floor(minutes / 60));
  return vscode.l10n.t('{0} d ago', Math.floor(minutes / (24 * 60)));
}

/** A time to wait. */
export const formatDuration = (ms: number): string =>
  ms < 90_000
    ? vscode.l10n.t('{0} s', Math.max(1, Math.round(ms / 1000)))
    : vscode.l10n.t('{0} min', Math.round(ms / 60_000));
