/**
 * Where the windows of one user find the engine that they share: a folder that only this user can open. The engine that holds
 * the folder's lock writes its address there. A window opens two connections: one for requests, and one that tells the engine
 * that the window lives, and the window that the engine does. Both begin with the token, on a line of its own.
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
  /** What the process writes to stderr. */
  log: z.string(),
  /** How long the engine stays after the last window closed, so that one that reloads finds it warm. */
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

/** Above this, a socket's path fits into no `sockaddr_un` (104 bytes on macOS, 108 on Linux). */
export const socketPathBytes = 103;

/** Takes as long for a wrong token as for the right one. */
export const sameToken = (given: string, token: string): boolean => timingSafeEqual(digestOf(given), digestOf(token));

const digestOf = (text: string): Buffer => createHash('sha256').update(text).digest();

/**
 * The parent of such folders: of the session where there is one, or below the temporary folder, whose owner and mode must then
 * be checked.
 */
export function sharedRoot(): string {
  const local = process.env[process.platform === 'win32' ? 'LOCALAPPDATA' : 'XDG_RUNTIME_DIR'];
  return local ? join(local, 'hearth') : join(tmpdir(), `hearth-${process.getuid?.() ?? userInfo().username}`);
}
