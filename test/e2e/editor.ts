/** A VS Code window with its own workspace in a real browser, driven by the tests. */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type Browser, chromium, type FrameLocator, type Locator, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, inject } from 'vitest';
import { addressFile, sharedAddress } from '../../engine/protocol/sharedEngine.ts';
import { homeEnvironment } from '../../scripts/shared/ownHome.ts';
import { projectRoot } from '../../scripts/shared/paths.ts';
import { isAlive } from '../../scripts/shared/process.ts';
import { quietSettings, type RunningServer, startServer } from '../../scripts/shared/vscodeServer.ts';

export interface EditorOptions {
  /** Path within the workspace to content. */
  files: Readonly<Record<string, string>>;
  settings?: Readonly<Record<string, unknown>>;
  /** Machine-scoped settings, such as `hearth.chat.model`, which a folder cannot set. */
  machineSettings?: Readonly<Record<string, unknown>>;
  /** The folder is a git repository, and the files are committed. */
  git?: boolean;
  /** True: VS Code asks whether it may trust the folder; it starts in restricted mode. */
  workspaceTrust?: boolean;
  /** Added to the environment of the server and its children. */
  environment?: Readonly<Record<string, string>>;
  /** True: an empty home with no model in it, the first window as `npm start` opens it, and VS Code's own defaults. */
  newUser?: boolean;
  /** Display language: Hearth's texts are in it. VS Code's own stay English, since its language packs come from a store. */
  language?: string;
}

interface EditorParts {
  readonly scratch: string;
  readonly server: RunningServer;
  readonly browser: Browser;
  readonly newUser: boolean;
  /** Name of the workspace's folder. */
  readonly folder?: string;
}

/** Maximum time for a window to open on a busy machine. */
const readyMs = 100_000;
/** Selector of a view's frame while the view is visible. */
const inView = '[src*="purpose=webviewView"]';
/** Default timeout of actions; small machines can be slow. */
const actionMs = 60_000;
/** Maximum time for the quick input to open after a key on a busy machine. */
const openMs = 10_000;
/**
 * Settings that make keyboard tests stable: nothing takes the focus while the window opens, only Hearth handles Tab, and a file
 * is saved only when the test saves it. `newUser` has none of them.
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
  /** The folder in which windows find their shared engine. */
  readonly #runtime: string;
  readonly #server: RunningServer;
  readonly #browser: Browser;

  private constructor(page: Page, { scratch, server, browser, newUser, folder = 'workspace' }: EditorParts) {
    this.#newUser = newUser;
    this.page = page;
    this.#scratch = scratch;
    this.#runtime = join(scratch, 'run');
    this.workspace = join(scratch, folder);
    this.home = join(scratch, 'home');
    this.#server = server;
    this.#browser = browser;
  }

  static async open(options: EditorOptions): Promise<Editor> {
    const prepared = inject('prepared');
    const scratch = mkdtempSync(join(tmpdir(), 'hearth-editor-'));
    const workspace = join(scratch, 'workspace');
    writeFiles(workspace, options.files);
    if (options.git === true) commitAll(workspace);
    mkdirSync(join(scratch, 'run', 'hearth'), { recursive: true, mode: 0o700 });
    if (options.language !== undefined) installEmptyPack(join(scratch, 'user-data'), options.language);
    const server = await startServer({
      language: options.language,
      entry: prepared.codeServer,
      userDataDir: join(scratch, 'user-data'),
      extensionsDir: prepared.extensionsDir,
      port: 0,
      // It runs on loopback for a minute and serves a scratch folder.
      password: undefined,
      workspaceTrust: options.workspaceTrust ?? false,
      openBrowser: false,
      environment: {
        XDG_RUNTIME_DIR: join(scratch, 'run'),
        ...(options.newUser === true && newUser(join(scratch, 'home'))),
        ...options.environment,
      },
      settings: { ...(options.newUser === true ? quietSettings : steadySettings), ...options.settings },
      machineSettings: options.machineSettings ?? {},
      onOutput: () => undefined,
    });
    const browser = await launchBrowser(prepared.browser).catch(async (error: unknown) => {
      await server.stop();
      throw error;
    });
    const editor = await Editor.#onPage({ scratch, server, browser, newUser: options.newUser === true });
    try {
      await editor.#goTo();
    } catch (error) {
      await editor.keepEvidence('not-ready');
      await editor.close();
      throw error;
    }
    return editor;
  }

  static async #onPage(parts: EditorParts): Promise<Editor> {
    const page = await parts.browser.newPage({ viewport: { width: 1280, height: 800 } });
    page.setDefaultTimeout(actionMs);
    return new Editor(page, parts);
  }

  /** Another window of the same VS Code, on a folder of its own. Only `closeWindow` may close it. */
  async openWindow(folder: string, files: EditorOptions['files']): Promise<Editor> {
    writeFiles(join(this.#scratch, folder), files);
    const parts = { scratch: this.#scratch, server: this.#server, browser: this.#browser, newUser: this.#newUser };
    const editor = await Editor.#onPage({ ...parts, folder });
    await editor.#goTo();
    return editor;
  }

  /** Closes the window as a user does, which ends its extension host. */
  async closeWindow(): Promise<void> {
    await this.page.goto('about:blank');
    await this.page.close();
  }

  async #goTo(): Promise<void> {
    await this.page.goto(`${this.#server.url}/?folder=${encodeURIComponent(this.workspace)}`);
    await this.#untilReady();
  }

  async close(): Promise<void> {
    await this.#browser.close();
    await this.#server.stop();
    // They would end by themselves within seconds.
    for (const pid of this.enginePids()) process.kill(pid, 'SIGKILL');
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
    await this.openNotebook(path);
    await this.page.locator('.editor-group-container.active .monaco-editor.focused').waitFor();
  }

  /** Opens a workspace file whose editor may not be a text editor. */
  async openNotebook(path: string): Promise<void> {
    const name = path.split('/').at(-1) ?? path;
    await this.#quickInput('Control+P', path, name);
    await this.page.locator(`.tab.active[data-resource-name="${name}"]`).waitFor();
  }

  /**
   * The input closes when something else takes the focus, such as a new webview; it is then opened again. The key is not pressed
   * twice while the input may still open, because in an open input it chooses the next row.
   */
  async #quickInput(key: string, text: string, chosen: string): Promise<void> {
    const { page } = this;
    const input = page.locator('.quick-input-widget input.input').first();
    const row = page.locator('.quick-input-list .monaco-list-row.focused', { hasText: chosen });
    const opened = async (): Promise<boolean> => {
      if (!(await input.isVisible())) {
        await page.keyboard.press(key);
        await input.waitFor({ timeout: openMs });
      }
      if ((await input.inputValue({ timeout: openMs })) !== text) await input.fill(text, { timeout: openMs });
      await Promise.race([row.waitFor({ timeout: openMs }), input.waitFor({ state: 'hidden', timeout: openMs })]).catch(
        () => undefined,
      );
      if (await row.isVisible()) return true;
      // Another list has the input.
      if (await input.isVisible()) await page.keyboard.press('Escape');
      return false;
    };
    const state = async () => {
      // By mouse, because a key would go elsewhere if the input had just closed.
      if (await opened().catch(() => false)) await row.click({ timeout: openMs });
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
  chat(): Promise<FrameLocator> {
    // A new user also has the walkthrough's webviews.
    return this.#chatIn(this.#newUser ? `[src*="extensionId=hearth.hearth"]${inView}` : '');
  }

  /** One of the chat's two pages while an editor tab shows it as well. */
  chatPage(place: 'view' | 'tab'): Promise<FrameLocator> {
    return this.#chatIn(place === 'view' ? inView : `:not(${inView})`);
  }

  async #chatIn(frames: string): Promise<FrameLocator> {
    const chat = this.page.frameLocator(`iframe.webview.ready${frames}`).frameLocator('iframe#active-frame');
    // Before the extension's first message its controls have no names, and move when they get them.
    await chat.locator('#model .control-label:not(:empty)').waitFor({ state: 'attached' });
    return chat;
  }

  /** An empty chat, once its page shows it. */
  async newChat(): Promise<FrameLocator> {
    await this.command('Hearth: New Chat');
    const chat = await this.chat();
    await expect.poll(() => chat.locator('.turn').count()).toBe(0);
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

  /** The process ids of this editor's engines, which all its windows share. */
  enginePids(): number[] {
    const root = join(this.#runtime, 'hearth');
    const files = readdirSync(root).map((folder) => addressFile(join(root, folder)));
    const pids = files.flatMap((file) =>
      existsSync(file) ? sharedAddress.parse(JSON.parse(readFileSync(file, 'utf8'))).pid : [],
    );
    return pids.filter(isAlive);
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

function writeFiles(folder: string, files: EditorOptions['files']): void {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
}

/** Creates the files of an installed language pack that translates nothing. */
function installEmptyPack(userData: string, language: string): void {
  const translations = join(userData, 'pack.i18n.json');
  mkdirSync(userData, { recursive: true });
  writeFileSync(translations, JSON.stringify({ version: '1.0.0', contents: {} }));
  const extensions = [{ extensionIdentifier: { id: 'hearth.pack' }, version: '1.0.0' }];
  const pack = { hash: language, label: language, extensions, translations: { vscode: translations } };
  writeFileSync(join(userData, 'languagepacks.json'), JSON.stringify({ [language]: pack }));
}

function newUser(home: string): Record<string, string | undefined> {
  mkdirSync(home, { recursive: true });
  // ONNX Runtime sends no telemetry in CI.
  return { ...homeEnvironment(home), HEARTH_FIRST_WINDOW: '1', CI: undefined, GITHUB_ACTIONS: undefined };
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
