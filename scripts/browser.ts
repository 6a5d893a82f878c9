/** Finds a Chromium for the end-to-end tests, or installs Debian's. */
import { join } from 'node:path';
import { findInPath, isExecutable, run } from './shared/process.ts';

const commands = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'microsoft-edge'];
const applications = [
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge',
  ...['ProgramFiles', 'ProgramFiles(x86)'].flatMap((variable) => {
    const folder = process.env[variable];
    if (folder === undefined) return [];
    return [
      join(folder, 'Google/Chrome/Application/chrome.exe'),
      join(folder, 'Microsoft/Edge/Application/msedge.exe'),
    ];
  }),
];

/** Returns its path, or undefined if none is installed or installable. */
export async function ensureBrowser(log: (line: string) => void): Promise<string | undefined> {
  return findBrowser() ?? (await installOnDebian(log));
}

function findBrowser(): string | undefined {
  return findInPath(commands) ?? applications.find(isExecutable);
}

async function installOnDebian(log: (line: string) => void): Promise<string | undefined> {
  const aptGet = findInPath(['apt-get']);
  if (aptGet === undefined || process.getuid?.() !== 0) return undefined;
  log('Installing Chromium with apt-get.');
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  try {
    await run(aptGet, ['update', '-q'], { env, output: 'quiet' });
    await run(aptGet, ['install', '-q', '-y', '--no-install-recommends', 'chromium'], { env, output: 'quiet' });
  } catch (error) {
    log(error instanceof Error ? error.message : String(error));
  }
  return findBrowser();
}
