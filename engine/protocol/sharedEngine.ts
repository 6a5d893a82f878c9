/**
 * The folder in which the windows of one user find the engine that they share; only this user can open it. The engine
 * that holds the folder's lock writes its address there. A window opens two connections: one for requests, and one by
 * which engine and window know that the other is alive. On both, the window first sends the token as a line.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import * as z from 'zod';

/** Environment variable with `sharedParams` as JSON, which makes a started engine serve windows over a socket. */
export const sharedVariable = 'HEARTH_SHARED';

export const sharedParams = z.object({
  /** The windows' folder. */
  folder: z.string(),
  /** File with the stderr of the process. */
  log: z.string(),
  /** How long the engine stays after the last window has closed, so that a window that reloads finds it warm. */
  graceMs: z.number().int().min(0),
});
export type SharedParams = z.infer<typeof sharedParams>;

export const sharedAddress = z.object({
  pid: z.number().int().min(1),
  token: z.string().min(32),
  /** Paths of sockets, or names of pipes. */
  requests: z.string(),
  life: z.string(),
  log: z.string(),
});
export type SharedAddress = z.infer<typeof sharedAddress>;

export const addressFile = (folder: string): string => join(folder, 'address.json');

/** Exit status of an engine that found another one in the folder. */
export const takenStatus = 75;

/** Sent to the life connection by a window that closes; one that is killed sends nothing. */
export const goodbye = 'bye\n';

/** Longest path of a socket: it must fit into `sockaddr_un` (104 bytes on macOS, 108 on Linux). */
export const socketPathBytes = 103;

/** Compares in constant time. */
export const sameToken = (given: string, token: string): boolean => timingSafeEqual(digestOf(given), digestOf(token));

const digestOf = (text: string): Buffer => createHash('sha256').update(text).digest();

/**
 * The parent of such folders: the login session's runtime folder if there is one, else a folder in the temporary
 * folder, whose owner and mode must then be checked.
 */
export function sharedRoot(): string {
  const local = process.env[process.platform === 'win32' ? 'LOCALAPPDATA' : 'XDG_RUNTIME_DIR'];
  return local ? join(local, 'hearth') : join(tmpdir(), `hearth-${process.getuid?.() ?? userInfo().username}`);
}
