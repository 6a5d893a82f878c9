/** A VS Code window with its own workspace in a real browser, driven by the tests. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type Browser, chromium, type FrameLocator, type Locator, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, inject } from 'vitest';
import { homeEnvironment } from '../../scripts/shared/ownHome.ts';
import { projectRoot } from '../../scripts/shared/paths.ts';
import { quietSettings, type RunningServer, startServer } from '../../scripts/shared/vscodeServer.ts';

export interface EditorOptions {
  /** Path within the workspace to content. */
  files: Readonly<Record<string, string>>;
  settings?: Readonly<Record<string, unknown>>;
  /** Of machine scope: `hearth.chat.model` and others that no folder may set. */
  machineSettings?: Readonly<Record<string, unknown>>;
  /** The folder is a git repository, and the files are committed. */
  git?: boolean;
  /** True: VS Code asks whether it may trust the folder; it starts in restricted mode. */
  workspaceTrust?: boolean;
  /** Added to the environment of the server and its children. */
  environment?: Readonly<Record<string, string>>;
  /** True: an empty home with no model in it, the first window as `npm start` opens it, and VS Code's own defaults. */
  newUser?: boolean;
}

const readyMs = 60_000;
/** Default timeout of actions; small machines can be slow. */
const actionMs = 60_000;
/** The time in which the input opens after a key, on a busy machine. */
const openMs = 10_000;
/**
 * What a test that drives the keyboard needs to be steady: nothing takes the focus while the window opens, nothing but Hearth answers Tab, and a
 * file is saved when the test says so. `newUser` goes without, as users do.
 */
const steadySettings = {
  ...quietSettings,
  'workbench.startupEditor': 'none',
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  'workbench.reduceMotion': 'on',
  'editor.quickSuggestions': { other: 'off', comments: 'off', strings: 'off' },
  'editor.suggestOnTriggerCharacters': false,
  'files.autoSave': 'off',
} as const;

export class Editor {
  readonly page: Page;
  readonly workspace: string;
  /** The home of a new user. */
  readonly home: string;
  readonly #newUser: boolean;
  readonly #scratch: string;
  readonly #server: RunningServer;
  readonly #browser: Browser;

  private constructor(page: Page, scratch: string, server: RunningServer, browser: Browser, newUser: boolean) {
    this.#newUser = newUser;
    this.page = page;
    this.#scratch = scratch;
    this.workspace = join(scratch, 'workspace');
    this.home = join(scratch, 'home');
    this.#server = server;
    this.#browser = browser;
  }

  static async open(options: EditorOptions): Promise<Editor> {
    const prepared = inject('prepared');
    const scratch = mkdtempSync(join(tmpdir(), 'hearth-editor-'));
    const workspace = join(scratch, 'workspace');
    for (const [path, content] of Object.entries(options.files)) {
      mkdirSync(dirname(join(workspace, path)), { recursive: true });
      writeFileSync(join(workspace, path), content);
    }
    if (options.git === true) commitAll(workspace);
    const server = await startServer({
      entry: prepared.codeServer,
      userDataDir: join(scratch, 'user-data'),
      extensionsDir: prepared.extensionsDir,
      port: 0,
      // It runs on loopback for a minute and serves a scratch folder.
      password: undefined,
      workspaceTrust: options.workspaceTrust ?? false,
      openBrowser: false,
      environment: { ...(options.newUser === true && newUser(join(scratch, 'home'))), ...options.environment },
      settings: { ...(options.newUser === true ? quietSettings : steadySettings), ...options.settings },
      machineSettings: options.machineSettings ?? {},
      onOutput: () => undefined,
    });
    const browser = await launchBrowser(prepared.browser).catch(async (error: unknown) => {
      await server.stop();
      throw error;
    });
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    page.setDefaultTimeout(actionMs);
    const editor = new Editor(page, scratch, server, browser, options.newUser === true);
    try {
      await page.goto(`${server.url}/?folder=${encodeURIComponent(workspace)}`);
      await editor.#untilReady();
    } catch (error) {
      await editor.keepEvidence('not-ready');
      await editor.close();
      throw error;
    }
    return editor;
  }

  async close(): Promise<void> {
    await this.#browser.close();
    await this.#server.stop();
    rmSync(this.#scratch, { recursive: true, force: true, maxRetries: 5 });
  }

  async reload(): Promise<void> {
    await this.page.reload();
    await this.#untilReady();
  }

  /** Runs the command with that title from the command palette. */
  async command(title: string): Promise<void> {
    await this.#quickInput('F1', `>${title}`, title);
  }

  /** Opens a workspace file and focuses its editor. */
  async openFile(path: string): Promise<void> {
    const name = path.split('/').at(-1) ?? path;
    await this.#quickInput('Control+P', path, name);
    await this.page.locator(`.tab.active[data-resource-name="${name}"]`).waitFor();
    await this.page.locator('.editor-group-container.active .monaco-editor.focused').waitFor();
  }

  /**
   * The input closes when something else takes the focus, a webview that is being made for example: then it is opened again. It is not asked
   * for a second time while it may still come, since the key also chooses the next row of an open one.
   */
  async #quickInput(key: string, text: string, chosen: string): Promise<void> {
    const input = this.page.locator('.quick-input-widget input.input').first();
    const row = this.page.locator('.quick-input-list .monaco-list-row.focused', { hasText: chosen });
    const opened = async (): Promise<boolean> => {
      if (!(await input.isVisible())) {
        await this.page.keyboard.press(key);
        await input.waitFor({ timeout: openMs });
      }
      if ((await input.inputValue({ timeout: openMs })) !== text) await input.fill(text, { timeout: openMs });
      await Promise.race([row.waitFor({ timeout: openMs }), input.waitFor({ state: 'hidden', timeout: openMs })]);
      return row.isVisible();
    };
    const state = async () => {
      if (await opened().catch(() => false)) await input.press('Enter', { timeout: openMs });
      else return 'not chosen';
      // The command may reuse the same input.
      await row.waitFor({ state: 'hidden', timeout: openMs });
      return 'chosen';
    };
    await expect.poll(() => state().catch(String), { timeout: actionMs, message: `${key} ${text}` }).toBe('chosen');
  }

  /** The status bar item with that text. */
  statusItem(text: string | RegExp): Locator {
    return this.page.locator('.statusbar-item', { hasText: text });
  }

  async openChat(): Promise<FrameLocator> {
    await this.command('Hearth: Open Chat');
    return this.chat();
  }

  /** The chat's page once it is loaded. media/chat.ts lists its stable selectors. */
  async chat(): Promise<FrameLocator> {
    // A new user also has the walkthrough's webviews.
    const own = this.#newUser ? '[src*="extensionId=hearth.hearth"][src*="purpose=webviewView"]' : '';
    const chat = this.page.frameLocator(`iframe.webview.ready${own}`).frameLocator('iframe#active-frame');
    await chat.locator('#question').waitFor();
    return chat;
  }

  async screenshot(name: string, folder = 'test/e2e/results'): Promise<void> {
    await this.page.screenshot({ path: join(projectRoot, folder, `${name}.png`) });
  }

  /** Saves a screenshot and the server's and extensions' logs in test/e2e/results. */
  async keepEvidence(name: string): Promise<void> {
    await this.screenshot(name);
    const logs = join(this.#scratch, 'user-data', 'logs');
    cpSync(logs, join(projectRoot, 'test', 'e2e', 'results', `${name}-logs`), { recursive: true });
  }

  /** The process ids of this editor's engines; a window starts at most one. */
  enginePids(): number[] {
    const rows = execFileSync('ps', ['-A', '-o', 'pid=,pgid=,args='], { encoding: 'utf8' }).split('\n');
    const fields = rows.map((row) => /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(row) ?? []);
    // The server leads a process group that contains its children.
    const ours = fields.filter(
      ([, , group, args]) => Number(group) === this.#server.pid && args?.includes('engine.mjs'),
    );
    return ours.map(([, pid]) => Number(pid));
  }

  /** The saved text of a workspace file. */
  read(path: string): string {
    return readFileSync(join(this.workspace, path), 'utf8');
  }

  async #untilReady(): Promise<void> {
    await this.page.locator('.monaco-workbench .part.statusbar').waitFor({ timeout: readyMs });
    await this.statusItem('Hearth').waitFor({ timeout: readyMs });
  }
}

function newUser(home: string): Record<string, string | undefined> {
  mkdirSync(home, { recursive: true });
  return { ...homeEnvironment(home), HEARTH_FIRST_WINDOW: '1' };
}

function commitAll(folder: string): void {
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=Test', '-c', 'user.email=test@localhost', ...args], { cwd: folder });
  git('init', '--quiet');
  git('add', '.');
  git('commit', '--quiet', '--message', 'Begin');
}

/** A suite with one shared editor. Skipped with a reason if no editor can run. */
export function describeInEditor(name: string, options: EditorOptions, body: (editor: () => Editor) => void): void {
  const { unavailable } = inject('prepared');
  if (unavailable !== undefined) {
    describe.skip(`${name} (skipped: ${unavailable})`, () => body(noEditor));
    return;
  }
  describe(name, () => {
    let open: Editor | undefined;
    beforeAll(async () => {
      open = await Editor.open(options);
    });
    afterAll(() => open?.close());
    afterEach(async ({ task }) => {
      if (task.result?.state === 'fail') await open?.keepEvidence(task.name.replaceAll(/\W+/g, '-'));
    });
    body(() => open ?? noEditor());
  });
}

function noEditor(): never {
  throw new Error('There is no editor before the first test.');
}

export async function launchBrowser(executablePath: string): Promise<Browser> {
  const quiet = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'];
  const root = process.getuid?.() === 0;
  return chromium.launch({
    executablePath,
    args: [...quiet, '--disable-component-update', '--disable-sync', ...(root ? ['--no-sandbox'] : [])],
  });
}
